"""Verify the declared graph with LLDP: links are declared, and what the wire says is held against it.

LLDP alone finds nothing in half of other people's set-ups, so nothing here depends on it: a link that is seen is
confirmed, a link that is seen elsewhere than declared is a warning that names both ends.
"""

from __future__ import annotations

from controller.domain import Domain
from controller.southbound.lldp import Lldp, build_lldp
from controller.southbound.openflow import Output, PacketOut, Southbound
from packets.events import Emit

PATIENCE_ROUNDS = 3


class Discovery:
    """Sends LLDP over every declared trunk and border, and checks what arrives."""

    def __init__(self, domain: Domain, south: Southbound, emit: Emit) -> None:
        self.domain, self.south, self.emit = domain, south, emit
        self.confirmed: dict[tuple[str, int], tuple[str, int]] = {}
        self.peers: dict[tuple[str, int], str] = {}
        self._warned: set[tuple[str, int]] = set()
        self._rounds = 0

    def probe(self) -> None:
        """Send one round; after some rounds warn once of every link nothing came over."""
        self._rounds += 1
        ports = sorted({*self.domain.trunks, *self.domain.borders})
        for name, port in ports:
            dpid = self.domain.switches[name].dpid
            self.south.send(dpid, [PacketOut((Output(port),), build_lldp(name, dpid, port))])
        if self._rounds > PATIENCE_ROUNDS:
            for at in ports:
                if at not in self.confirmed and self.domain.is_up(*at):
                    self._warn(at, "declared, but nothing has come over it: is the link there?")

    def heard(self, dpid: int, in_port: int, lldp: Lldp) -> None:
        """Check what came over a link against the declared graph."""
        name, port = lldp.name, lldp.port
        at = self.domain.by_dpid[dpid].name, in_port
        declared = self.domain.far_end(*at)
        if declared is None and at in self.domain.borders:
            declared = name, port  # the plan does not tell what lies beyond a border: believe it, and keep the name
        if declared != (name, port):
            self._warn(
                at, f"declared to end at {declared}, but {name} port {port} is there: check the cabling or the plan"
            )
            return
        self.peers[at] = name
        if at not in self.confirmed:
            self.confirmed[at] = name, port
            self.emit("link.confirmed", switch=at[0], port=in_port, far_switch=name, far_port=port)

    def _warn(self, at: tuple[str, int], text: str) -> None:
        if at not in self._warned:
            self._warned.add(at)
            self.emit("warning", text=f"link at {at[0]} port {at[1]}: {text}")
