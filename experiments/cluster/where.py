"""Where a run stands, as the command line says it, and how switches and control centres speak there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, network_plan
from experiments.testbed.folder import RunFolder
from experiments.testbed.openflow_tls import HERE, Certificates
from experiments.testbed.testbed import Bed


@dataclass(frozen=True)
class Where:
    """``tls``: OpenFlow over TLS, with certificates of this run's own, or those of the folder ``certs``."""

    tls: bool = False
    certs: Path | None = None

    def check(self, scenario: Scenario) -> None:
        """Check what can be checked before anything is made; ``ExperimentError``."""
        if self.certs is not None:
            Certificates(self.certs).need(network_plan(scenario).kas_numbers, [HERE])

    def bed(self, scenario: Scenario, folder: RunFolder, *, page_port: int | None, capture: bool) -> Bed:
        """Return the bed of a run, not yet made."""
        certificates = None if self.certs is None else Certificates(self.certs.resolve())
        return Bed(scenario, folder, page_port=page_port, capture=capture, certificates=certificates, tls=self.tls)


def check_servers(said: str) -> list[str]:
    """Return the servers of a list with commas; ``ExperimentError`` when one is named twice, or none."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not names:
        raise ExperimentError(f"--servers {said}: {f'{twice} is named twice' if twice else 'name at least one server'}")
    wrong = next((name for name in names if name.startswith("-")), None)
    if wrong:
        raise ExperimentError(f"--servers {said}: {wrong!r} is no name of a machine; give names as for ssh")
    return names
