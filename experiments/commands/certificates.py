"""``daitn certs``: keys and certificates for OpenFlow over TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.commands.app import ScenarioArgument, app, out


@app.command()
def certs(
    folder: Annotated[Path, typer.Argument(help="Folder to make them in (its files are readable by you alone).")],
    scenario: ScenarioArgument = "healthcare",
    servers: Annotated[str, typer.Option(help="Machines whose switches get one, comma between them.")] = "localhost",
    days: Annotated[int, typer.Option(help="How long they are good for.", min=1, max=3650)] = 30,
    add: Annotated[bool, typer.Option("--add", help="Make what is missing, signed by the authority there.")] = False,
) -> None:
    """Make an authority, and a key and certificate for each control centre and each machine's switches."""
    from experiments.cluster.where import check_servers
    from experiments.commands.resolving import resolve_without_data
    from experiments.scenarios.scenario import network_plan
    from experiments.testbed.openflow_tls import Certificates

    names, plan = check_servers(servers), network_plan(resolve_without_data(scenario))
    made = Certificates(folder).make(plan.kas_numbers, names, days, add=add)
    for path in made:
        out.print(str(path), highlight=False, soft_wrap=True)
    out.print(f"{len(made)} certificate(s), good for {days} days: `daitn run --certs {folder}`", highlight=False)
