"""The part of a network that stands on this server: made as any network, and tunnels where its links are cut.

VXLAN, because every kernel has it that has tunnels at all, and it shows frames as a wire would: the tunnel's end *is*
the gateway's port. Where the kernel has no netem, a link's delay line stands at its end ``a``, a bridge before the
tunnel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topologies import wiring
from topologies.cluster.parts import Cut
from topologies.custom import PlanIntf, PlanLink
from topologies.machine import netns, shell, wires
from topologies.machine.tls import SwitchTls
from topologies.network import Network
from topologies.plan import NetworkPlan
from topologies.session import Session

VXLAN_PORT = 55840  # not IANA's: Open vSwitch's own tunnels may hold that one
LLDP_FORWARDED = 0x4000  # a Linux bridge keeps 01:80:c2:00:00:0e to itself, unless told


class CutLink(PlanLink):
    """This end of a link between servers."""

    def __init__(self, node: Any, cut: Cut, session: Session, wire: wires.Wire | None) -> None:
        self.plan, self.session, self.wire, self.cut = cut.link, session, wire, cut
        here = PlanIntf(cut.interface, node=node, port=cut.port, link=self, moveIntfFn=self._ignore)
        self.intf1, self.intf2 = (here, None) if cut.end == "a" else (None, here)


class PartNetwork(Network):
    """A network of which some links end on other servers; ``mtu``: what its tunnels carry."""

    def __init__(
        self, plan: NetworkPlan, run_id: str, controller_ports: Mapping[int, int], runtime_dir: Path, *,
        cuts: Sequence[Cut], mtu: int, tls: SwitchTls | None = None,
    ) -> None:  # fmt: skip
        super().__init__(plan, run_id, controller_ports, runtime_dir, tls=tls)
        self.cuts, self.mtu = list(cuts), mtu

    def _make_links(self, session: Session, wired: set[str]) -> None:
        super()._make_links(session, wired)
        assert session.ledger is not None
        names = [name for cut in self.cuts for name in (cut.interface, tunnel_name(cut), bridge_name(cut))]
        session.ledger.note(lambda content: content.interfaces.extend(names))
        for cut in self.cuts:
            self.links.append(CutLink(self[cut.switch], cut, session, self._make_cut(session, cut)))

    def _make_cut(self, session: Session, cut: Cut) -> wires.Wire | None:
        wire = None
        tunnel = cut.interface
        if wiring.needs_wire(cut.link, session.netem, session.wirefilter) and cut.end == "a":
            tunnel = tunnel_name(cut)
            wire = wires.start_wire(cut.link, (cut.interface, f"{tunnel}w"), session.environment)
            wires.wait_for_taps(wire)
        shell.batch("ip", tunnel_lines(cut, tunnel, session.run_id))
        if wire is not None:
            shell.batch("ip", bridge_lines(cut, (tunnel, wire.taps[1]), session.run_id))
        for name in {cut.interface, tunnel, *(wire.taps if wire else ())}:
            netns.quiet_ipv6(name)
        netns.offload_off(
            tunnel, netns.GENERIC_RECEIVE
        )  # merged on arrival, frames would be longer than any port takes
        shell.batch("ip", wiring.up_lines([cut.interface], session.run_id))
        return wire

    def _make(self, session: Session, wired: set[str]) -> None:
        super()._make(session, wired)
        self.narrow([speaker.name for speaker in self.plan.speakers])

    def narrow(self, stations: Iterable[str]) -> None:
        """Have stations send no longer packets than the tunnels carry (terminals after calibration, which fills
        Ethernet's frames).
        """
        for node in map(self.hosts.__getitem__, stations):
            line = (f"link set {node.defaultIntf().name} mtu {self.mtu}", f"terminal {node.name}")
            netns.inside(node.pid, lambda line=line: shell.batch("ip", [line]))  # type: ignore[misc]


def tunnel_name(cut: Cut) -> str:
    """Return the name of a tunnel's own interface, where it is not the gateway's port itself."""
    return f"dtun{cut.number}"


def bridge_name(cut: Cut) -> str:
    """Return the name of the bridge between a delay line and its tunnel."""
    return f"dbr{cut.number}"


def tunnel_lines(cut: Cut, name: str, run_id: str) -> list[wiring.Line]:
    """Make a tunnel's end; it refuses to be fragmented where the path carries less than it was told."""
    mark, purpose = f"group {wiring.group(run_id)}", f"link {cut.link.name}, tunnel to {cut.remote}"
    return [
        (
            f"link add name {name} mtu {cut.mtu} {mark} type vxlan id {cut.number} local {cut.local}"
            f" remote {cut.remote} dstport {VXLAN_PORT} nolearning df set",
            purpose,
        ),
        (f"link set dev {name} alias {wiring.alias(run_id)} up", purpose),
    ]


def bridge_lines(cut: Cut, members: tuple[str, str], run_id: str) -> list[wiring.Line]:
    """Make a bridge that hands everything on between two interfaces, and learns nothing."""
    name, purpose = bridge_name(cut), f"link {cut.link.name}, end of its delay line"
    mark = f"group {wiring.group(run_id)}"
    lines = [
        f"link add name {name} {mark} type bridge ageing_time 0 mcast_snooping 0 group_fwd_mask {LLDP_FORWARDED}",
        *(f"link set dev {member} alias {wiring.alias(run_id)} master {name} up" for member in members),
        f"link set dev {name} alias {wiring.alias(run_id)} up",
    ]
    return [(line, purpose) for line in lines]
