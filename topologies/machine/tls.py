"""The key and certificate that Open vSwitch shows to control centres: one for all bridges of a machine.

Open vSwitch has one place for them (``ovs-vsctl set-ssl``). Where somebody else's stand there, they stay.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from topologies.errors import RefusedError
from topologies.machine import shell


class SwitchTls(msgspec.Struct, frozen=True):
    """Where the switches' own key and certificate lie, and the authority's certificate that they trust."""

    certificate: Path
    authority: Path


def show(tls: SwitchTls, run_id: str) -> None:
    """Have Open vSwitch show this certificate from now on; ``RefusedError`` when it has one that is not ours."""
    if owner() not in (None, run_id):
        raise RefusedError(
            "Open vSwitch has a key and certificate already: `ovs-vsctl get-ssl` shows them; "
            "`ovs-vsctl del-ssl` removes them, or run without TLS"
        )
    files = {"private_key": tls.certificate, "certificate": tls.certificate, "ca_cert": tls.authority}
    columns = [f"{column}={msgspec.json.encode(str(path)).decode()}" for column, path in files.items()]
    columns.append(f"external-ids:daitn-run={run_id}")
    shell.must("ovs-vsctl", "--", "--id=@ssl", "create", "SSL", *columns, "--", "set", "Open_vSwitch", ".", "ssl=@ssl")


def owner() -> str | None:
    """Return the run whose certificate Open vSwitch shows: None when it has none, "" when nobody marked it."""
    answer = shell.run("ovs-vsctl", "--timeout=5", "--format=json", "--columns=external_ids", "list", "SSL")
    rows = msgspec.json.decode(answer.stdout)["data"] if answer.returncode == 0 else []
    return next((str(dict(ids[1]).get("daitn-run", "")) for (ids,) in rows), None)


def hide(run_id: str) -> bool:
    """Take a run's certificate from Open vSwitch; tell whether there was one."""
    if owner() != run_id:
        return False
    return shell.run("ovs-vsctl", "--timeout=5", "clear", "Open_vSwitch", ".", "ssl").returncode == 0
