"""Ways around a dead link, in the switches before it dies: fast-failover groups, and detours that cannot loop.

For every switch ``d`` of a K-AS the ways towards it are a tree (``Domain.next_ports``).  A link of the tree that dies
cuts a subtree off; any other link out of that subtree joins it again.  ``detours`` chooses, for every switch, the one
that joins it nearest to ``d``, so that it also helps when the next switch is dead.  A packet that finds its way dead

1. is marked (``eth_dst`` names the switch it is led to, ``detour_mac``) and goes *down* the tree to that link,
2. crosses it, once, and
3. goes *up* the tree to ``d``, which takes the mark off.

Down it goes only when it comes from the switch it would else go up to, and no marked packet is led astray again: the
phases follow each other, each ends, so nothing loops whatever else is dead; then it is dropped.  Where the link is the
switch's own, its far end is a loop-free alternate (RFC 5286, inequality 1); the other switches of the subtree are
reached as with U-turn alternates, so every link that is no bridge is protected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.domain import Domain
from controller.southbound.frames import ETH_IPV4, UDP
from controller.southbound.openflow import Action, Bucket, FlowMod, GroupMod, Match, Move, Output, SetField, ToGroup
from packets.labels import AI_PORT, LABEL_NETWORK
from topologies.plan import ROUTER_MAC

Trunk = tuple[str, int, str, int]  # switch, port, switch, port
End = tuple[str, int]
Rank = tuple[int, int, int]  # depth at which the trees meet again, switches down to the link, port

GROUP_BASE = 1 << 30  # labels, which are the group numbers of classes, have 28 bits
PORT_BITS = 14
MARK = "02:da:fe:00:00:00", "ff:ff:ff:ff:00:00"  # terminals have 02:da:00


def detours(target: str, towards: Mapping[str, int], trunks: Iterable[Trunk]) -> dict[str, int]:
    """Return, for every switch that has another way to ``target``, the port at which that begins.

    ``towards``: the port of each switch's way up the tree.
    """
    far: dict[End, End] = {}
    for a, a_port, b, b_port in trunks:
        far[a, a_port], far[b, b_port] = (b, b_port), (a, a_port)
    above = {name: far[name, port][0] for name, port in towards.items()}
    depth = _depths(target, above)
    tree = {(name, port) for name, port in towards.items()}
    tree |= {far[end] for end in tree}
    best: dict[str, tuple[Rank, int]] = {}

    def offer(name: str, rank: Rank, port: int) -> None:
        if rank[0] < depth[name] and (name not in best or rank < best[name][0]):
            best[name] = rank, port

    for (name, port), (other, _) in far.items():
        if (name, port) not in tree and name in depth and other in depth:
            offer(name, (depth[_meet(name, other, above, depth)], 0, port), port)
    for name in sorted(above, key=lambda n: -depth[n]):  # the deepest first: what a switch has, the one above may use
        if name in best and name != target:
            (meets, steps, _), (up, port) = best[name][0], far[name, towards[name]]
            offer(up, (meets, steps + 1, port), port)
    return {name: port for name, (_, port) in best.items() if name != target}


def _depths(target: str, above: Mapping[str, str]) -> dict[str, int]:
    depth = {target: 0}
    for name in above:
        climbed, at = list[str](), name
        while at not in depth:
            climbed.append(at)
            at = above[at]
        for step, passed in enumerate(reversed(climbed), 1):
            depth[passed] = depth[at] + step
    return depth


def _meet(a: str, b: str, above: Mapping[str, str], depth: Mapping[str, int]) -> str:
    """Return where the ways up of two switches meet."""
    while a != b:
        if depth[a] < depth[b]:
            a, b = b, a
        a = above[a]
    return a


@dataclass(frozen=True)
class Way:
    """The ways of a K-AS to one of its switches: the tree's ports, and where the detours begin."""

    number: int
    target: str
    towards: Mapping[str, int]
    around: Mapping[str, int]

    @property
    def mac(self) -> str:
        """The address that marks a packet on a detour to this switch."""
        return f"02:da:fe:00:{self.number >> 8:02x}:{self.number & 0xFF:02x}"

    def group(self, port: int) -> int:
        """Return the number of the group that leads out of ``port``, or around it."""
        return GROUP_BASE | self.number << PORT_BITS | port

    def onward(self, name: str) -> tuple[Action, ...]:
        """What a switch does with a packet for the target: straight out, or by its group where there is a detour."""
        port = self.towards[name]
        return (ToGroup(self.group(port)),) if name in self.around else (Output(port),)


def out_of(number: int) -> tuple[Action, ...]:
    """Return what leads out of a port, or by a group of ours."""
    return (ToGroup(number),) if number >= GROUP_BASE else (Output(number),)


def port_of(group: int) -> int:
    """Return the port that a group of ours leads out of as long as it lives."""
    return group & (1 << PORT_BITS) - 1


class Ways:
    """All ways of a domain for the links that are up, each computed when it is asked for."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._numbers = {s.name: number for number, s in enumerate(domain.plan.switches)}
        self._known: dict[str, Way] = {}

    def to(self, target: str) -> Way:
        """Return the ways to a switch."""
        if target not in self._known:
            towards = self._domain.next_ports(target)
            around = detours(target, towards, self._trunks(self._domain.switches[target].kas))
            self._known[target] = Way(self._numbers[target], target, towards, around)
        return self._known[target]

    def of(self, name: str) -> Iterator[Way]:
        """Yield the ways to all other switches of a switch's K-AS."""
        kas = self._domain.switches[name].kas
        return (self.to(s.name) for s in self._domain.switches_of(kas) if s.name != name)

    def _trunks(self, kas: int) -> Iterator[Trunk]:
        switches = self._domain.switches
        for (name, port), link in self._domain.trunks.items():
            inside = switches[name].kas == kas and switches[link.b].kas == switches[link.a].kas
            if inside and (link.a, link.a_port) == (name, port) and self._domain.is_up(name, port):
                yield name, port, link.b, link.b_port


def groups(ways: Ways, name: str, known: Iterable[int]) -> dict[int, GroupMod]:
    """Return the groups of a switch by number: those its rules use, and those older ones (``known``) that label rules
    may still use, whose way around is now the way.
    """
    found: dict[int, GroupMod] = {}
    older = set(known)
    for way in ways.of(name):
        port = way.towards.get(name)
        mine = {g for g in older if g >> PORT_BITS == way.group(0) >> PORT_BITS}
        if port is None:
            found |= {g: _group(g, way, None) for g in mine}
            continue
        if name in way.around:
            found[way.group(port)] = _group(way.group(port), way, way.around[name])
        found |= {g: _group(g, way, port if port_of(g) != port else None) for g in mine - set(found)}
    return found


def _group(number: int, way: Way, around: int | None) -> GroupMod:
    port = port_of(number)
    buckets = [Bucket(0, (Output(port),), watch_port=port)]
    if around is not None:  # OpenFlow sends nothing back where it came from, unless it is told to forget that
        forget = Move("reg1", "in_port_nxm", 16)  # reg1 is 0: nobody writes it
        back: tuple[Action, ...] = (SetField("eth_dst", way.mac), forget, Output(around))
        buckets.append(Bucket(0, back, watch_port=around))
    return GroupMod(number, tuple(buckets), failover=True)


def classify(trunks: Iterable[int], table: int, goto: int) -> list[FlowMod]:
    """Take packets on a detour, which come over trunks alone; a terminal that marks its own is not heard."""
    marked: Match = {"eth_type": ETH_IPV4, "eth_dst": MARK}
    return [
        *(FlowMod(table, {"in_port": port, **marked}, 98, goto=goto) for port in sorted(trunks)),
        FlowMod(table, marked, 97),
    ]


def detour_flows(ways: Ways, name: str, table: int, route: int, label: int) -> list[FlowMod]:
    """Return what a switch does with packets on a detour: down, across or up; at their target as with any other."""
    own: Match = {"eth_type": ETH_IPV4, "eth_dst": ways.to(name).mac}
    labelled: Match = {"ipv4_dst": (str(LABEL_NETWORK.network_address), str(LABEL_NETWORK.netmask))}
    flows = [
        FlowMod(table, {**own, **labelled, "ip_proto": UDP, "udp_dst": AI_PORT}, 30, goto=label),
        FlowMod(table, own, 20, (SetField("eth_dst", ROUTER_MAC),), goto=route),
    ]
    for way in ways.of(name):
        port = way.towards.get(name)
        if port is None:
            continue
        marked: Match = {"eth_type": ETH_IPV4, "eth_dst": way.mac}
        flows.append(FlowMod(table, marked, 10, (Output(port),)))
        if name in way.around:
            flows.append(FlowMod(table, {"in_port": port, **marked}, 20, (Output(way.around[name]),)))
    return flows
