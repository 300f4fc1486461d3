"""Where a run stands, as the command line says it, and how switches and control centres speak there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, network_plan
from experiments.testbed.folder import RunFolder
from experiments.testbed.openflow_tls import HERE, Certificates
from experiments.testbed.testbed import Bed
from topologies.cluster.parts import place


@dataclass(frozen=True)
class Where:
    """``tls``: OpenFlow over TLS, with certificates of this run's own, or those of the folder ``certs``.

    ``servers``: names of machines, comma between them (empty: this one); ``place``: ``K=SERVER`` for some K-AS.
    """

    tls: bool = False
    certs: Path | None = None
    servers: str = ""
    place: str = ""

    def check(self, scenario: Scenario) -> None:
        """Check what can be checked before anything is made; ``ExperimentError``."""
        placed = self._placed(scenario)
        if placed and scenario.background:
            raise ExperimentError(f"scenario {scenario.name}: `background` is for one machine; leave it out")
        if self.certs is not None:
            Certificates(self.certs).need(network_plan(scenario).kas_numbers, placed.values() or [HERE])

    def bed(self, scenario: Scenario, folder: RunFolder, **how: Any) -> Bed:
        """Return the bed of a run, not yet made; ``how``: more of what ``Bed`` is told."""
        certificates = None if self.certs is None else Certificates(self.certs.resolve())
        how["certificates"] = certificates
        if placed := self._placed(scenario):
            from experiments.cluster.bed import ClusterBed  # for few runs

            return ClusterBed(scenario, folder, placed=placed, **how)
        return Bed(scenario, folder, tls=self.tls, **how)

    def _placed(self, scenario: Scenario) -> dict[int, str]:
        if not self.servers:
            if self.place:
                raise ExperimentError(f"--place {self.place}: it needs --servers too")
            return {}
        return place(network_plan(scenario).kas_numbers, check_servers(self.servers), _said(self.place))


def _said(words: str) -> dict[int, str]:
    said: dict[int, str] = {}
    for word in filter(None, words.split(",")):
        kas, _, server = word.partition("=")
        if not kas.strip().isdigit() or not server.strip():
            raise ExperimentError(f"--place {words}: {word!r} is not K=SERVER, for example 1=a,2=b")
        said[int(kas)] = server.strip()
    return said


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
