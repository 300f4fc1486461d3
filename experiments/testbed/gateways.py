"""The border speakers of a run: one beside each gateway, in a host of the network, with a certificate of the run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.border.kbgp.config import Config, Neighbour
from experiments.testbed.identities import Identities
from experiments.testbed.processes import python
from packets.kbgp.messages import PORT
from packets.security.x509 import Authority
from topologies.plan import HostPlan, NetworkPlan

KEYLOG = "tls-keys.log"


class Gateways:
    """Writes what the speakers of a plan need into the run's directory, and says how each is started.

    ``signed``: they take no knowledge that its K-AS has not signed; ``keylog``: where TLS keys go, for the capture;
    ``written``: what they need lies there already.
    """

    def __init__(
        self, plan: NetworkPlan, runtime: Path, identities: Identities, *, signed: bool, keylog: Path | None = None,
        written: bool = False,
    ) -> None:  # fmt: skip
        self.plan, self._runtime, self._signed, self._keylog = plan, runtime, signed, keylog
        self._directory, self._authority_file = identities.directory, runtime / "authority.pem"
        if keylog is not None:
            keylog.touch(mode=0o600)
        if not written:
            self._write(identities)

    def _write(self, identities: Identities) -> None:
        authority = Authority()
        self._authority_file.write_bytes(authority.pem)
        for speaker in self.plan.speakers:
            authority.save(identities[speaker.name], self._file(speaker, "pem"))
            self._file(speaker, "json").write_bytes(msgspec.json.encode(speaker_config(self.plan, speaker)))

    def files(self, speaker: HostPlan) -> list[Path]:
        """Return what was written for a speaker, and for all."""
        return [self._file(speaker, "pem"), self._file(speaker, "json"), self._authority_file, self._directory]

    def _file(self, speaker: HostPlan, kind: str) -> Path:
        return self._runtime / f"{speaker.name}.{kind}"

    def command(self, speaker: HostPlan, namespace_pid: int) -> list[str]:
        """Return the command that runs a speaker in its host's network namespace."""
        options = {
            "--config": self._file(speaker, "json"),
            "--certificate": self._file(speaker, "pem"),
            "--authority": self._authority_file,
            "--directory": self._directory,
            "--runtime-dir": self._runtime,
            "--events": self._runtime / "events.sock",
            **({"--keylog": self._keylog} if self._keylog else {}),
        }
        words = [str(word) for pair in options.items() for word in pair] + ([] if self._signed else ["--unsigned"])
        return ["nsenter", f"--net=/proc/{namespace_pid}/ns/net", *python("controller.border.speaker", *words)]


def speaker_config(plan: NetworkPlan, speaker: HostPlan) -> Config:
    """Return who a speaker's neighbours are: those beyond its gateway's links, and those of its own K-AS.

    Parallel links between two gateways carry one session: ordinary routing chooses between them.
    """
    at = {s.switch: s for s in plan.speakers}
    kas_of = {s.name: s.kas for s in plan.switches}
    neighbours: dict[str, Neighbour] = {}
    for link in plan.links:
        ends = {link.a, link.b}
        if speaker.switch not in ends or link.a not in kas_of or kas_of[link.a] == kas_of[link.b]:
            continue
        other = at[(ends - {speaker.switch}).pop()]
        neighbours.setdefault(other.name, _neighbour(other, link.name, link.delay_ms))
    for other in plan.speakers:
        if other.kas == speaker.kas and other is not speaker:
            neighbours[other.name] = _neighbour(other, "-".join(sorted((speaker.name, other.name))), 0.0)
    return Config(
        kas=speaker.kas, gateway=speaker.name, neighbours=list(neighbours.values()), address=speaker.address, port=PORT,
        links=joined(plan),
    )  # fmt: skip


def _neighbour(other: HostPlan, link: str, delay_ms: float) -> Neighbour:
    return Neighbour(kas=other.kas, gateway=other.name, link=link, address=other.address, port=PORT, cost=delay_ms)


def joined(plan: NetworkPlan) -> list[tuple[int, int]]:
    """Return the pairs of K-AS that a link joins, sorted, the lower number first."""
    return sorted({(min(x.a_kas, x.b_kas), max(x.a_kas, x.b_kas)) for x in plan.domain().kas_links})
