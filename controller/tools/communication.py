"""Communication and networking management: the service that owns the switches of a domain.

Path service (ordinary routes, label paths), flow service (rules in, barrier answered, rules out) and announce service
(packets released, answers put out).  It knows no job: it is told entries and exits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from controller.domain import Domain
from controller.errors import ControllerError, SteeringError
from controller.runtime.bounded import Bounded
from controller.southbound import failover, guard, pipeline
from controller.southbound.failover import Ways
from controller.southbound.frames import Datagram, build_udp
from controller.southbound.guard import closed_mods
from controller.southbound.openflow import (
    PORT_TABLE,
    Action,
    FlowMod,
    GroupMod,
    Mod,
    Output,
    PacketIn,
    PacketOut,
    Southbound,
    ToGroup,
)
from controller.tools.classes import Classes
from controller.tools.exits import Entry, Exit
from packets.events import Emit
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.parts import cut
from packets.wire import Header, encode
from topologies.plan import ROUTER_MAC, HostPlan

PATHS_KEPT = 8192  # of labels; the one laid longest ago is given back
PREPARE_S = 60.0  # a switch that is given its first rules shares the machine with all the others that start


@dataclass
class LabelPath:
    """The rules of one label in one K-AS."""

    label: int
    kas: int
    entry: Entry
    exit: Exit
    switches: list[str]
    rules: list[tuple[str, FlowMod]] = field(repr=False)


class Communication:
    """Routes, label paths and packets of one domain."""

    def __init__(self, domain: Domain, south: Southbound, emit: Emit) -> None:
        self.domain, self.south, self.emit = domain, south, emit
        self.connected: set[str] = set()
        self.paths: dict[tuple[int, int], LabelPath] = {}
        self._locks: Bounded[tuple[int, int], asyncio.Lock] = Bounded()
        self.closed: Collection[str] = ()  # terminals whose ports carry no AI traffic
        self.own_source = False  # whether a terminal may send from its own address alone
        self.seal: Callable[[HostPlan, Header, bytes], bytes] = lambda _, header, payload: encode(header, payload)
        self._routes: dict[str, list[FlowMod]] = {}
        self._groups: dict[str, dict[int, GroupMod]] = {}
        self._live_routes: tuple[object, Ways, dict[str, list[FlowMod]]] = (None, Ways(domain), {})
        self._seen: set[str] = set()
        self.classes = Classes(domain, south, self.ways)

    # --- switches and routes

    async def prepare(self, name: str, ports: set[int], *, meters: bool) -> None:
        """Give a switch that has just connected everything it needs, barrier answered; raises ``SwitchTimeout``.

        A switch this process knows already keeps its label rules (it was only the session that broke).
        """
        switch = self.domain.switches[name]
        self._note_ports(name, ports)
        mods = [
            *pipeline.base_mods(self.domain, switch, fresh=name not in self._seen, meters=meters),
            *guard.switch_mods(self.domain, switch, meters=meters, own_source=self.own_source),
            *(m for h in self.domain.plan.hosts if h.switch == name and h.name in self.closed for m in closed_mods(h)),
        ]
        routes = self._wanted_routes()[name]
        labels = [
            rule for path in self.paths.values() for at, rule in path.rules if at == name
        ]  # it may be a new bridge
        self._regroup(name)
        mods += self._groups[name].values()
        self.south.send(switch.dpid, [*mods, *routes, *labels, *self.classes.rules_of(name)])
        await self.south.barrier(switch.dpid, PREPARE_S)
        self._routes[name] = routes
        self._seen.add(name)
        self.connected.add(name)
        self.reroute()  # links may have come or gone meanwhile

    def _wanted_routes(self) -> dict[str, list[FlowMod]]:
        """Return every switch's route table, computed once for each set of live links."""
        links = frozenset(self.domain.down), frozenset(self.domain.down_kas)
        if self._live_routes[0] != links:
            ways = Ways(self.domain)
            self._live_routes = links, ways, pipeline.route_flows(self.domain, ways)
        return self._live_routes[2]

    def ways(self) -> Ways:
        """Return the ways that the switches have been told of; a link may be down meanwhile."""
        if self._live_routes[0] is None:
            self._wanted_routes()
        return self._live_routes[1]

    def _regroup(self, name: str) -> list[Mod]:
        """Bring what is known of a switch's groups in line with the ways; return those that change."""
        before = self._groups.get(name, {})
        self._groups[name] = wanted = failover.groups(self.ways(), name, before)
        return [group for number, group in wanted.items() if before.get(number) != group]

    def _note_ports(self, name: str, ports: set[int]) -> None:
        declared = [p for at, p in [*self.domain.trunks, *self.domain.borders, *self.domain.host_at] if at == name]
        for port in declared:
            if port in ports:
                self.domain.down.discard((name, port))
            elif name in self._seen:
                self.domain.down.add((name, port))

    def lost(self, name: str) -> None:
        """A session broke. The switch goes on forwarding by itself (fail-secure)."""
        self.connected.discard(name)

    @property
    def complete(self) -> bool:
        """Whether every switch of the domain is connected and prepared."""
        return self.connected == set(self.domain.switches)

    def reroute(self) -> int:
        """Bring the route tables in line with the links that are up; returns how many rules changed."""
        changed = 0
        for name, wanted in self._wanted_routes().items():
            if name not in self.connected or self._routes.get(name) is wanted:
                continue
            mods = [*self._regroup(name), *pipeline.route_changes(self._routes.get(name, []), wanted)]
            self.south.send(self.domain.switches[name].dpid, mods)
            self._routes[name] = wanted
            changed += len(mods)
        return changed

    # --- label paths

    def switch_path(self, start: str, end: str) -> list[str]:
        """Return the switches from one to another of the same K-AS, both included; ``SteeringError`` when cut off."""
        next_ports, path = self.ways().to(end).towards, [start]
        while path[-1] != end:
            port = next_ports.get(path[-1])
            far = self.domain.far_end(path[-1], port) if port is not None else None
            if far is None:
                raise SteeringError(f"no live path from {start} to {end}")
            path.append(far[0])
        return path

    def _hops(self, entry: Entry, leave: Exit) -> list[tuple[str, int, tuple[Action, ...]]]:
        """Return (switch, in port, actions) along the shortest live path."""
        way, hops, in_port = self.ways().to(leave.switch), [], entry.port
        for name in self.switch_path(entry.switch, leave.switch)[:-1]:
            hops.append((name, in_port, way.onward(name)))
            far = self.domain.far_end(name, way.towards[name])
            in_port = far[1] if far else 0
        if (leave.switch, leave.port) == (entry.switch, entry.port):
            raise SteeringError(f"{leave.switch} port {leave.port}: the object is there already")
        return [*hops, (leave.switch, in_port, leave.actions())]

    async def steer(self, label: int, kas: int, entry: Entry, leave: Exit) -> LabelPath:
        """Lead a label through a K-AS; returns once every switch has its rule, and no older one is left.

        Make before break: from the far end to the entry, each switch confirmed before the one ahead of it sends there,
        so packets under way find either the old path whole or the new one.  On an error no rule of the label stays.
        """
        async with self._lock(label, kas):
            hops = self._hops(entry, leave)
            cookie = pipeline.label_cookie(label)
            rules = [
                (n, FlowMod(pipeline.LABEL, pipeline.label_match(label, p), 50, a, cookie=cookie)) for n, p, a in hops
            ]
            if any(isinstance(rule.actions[-1], ToGroup) for _, rule in rules):  # what came by a detour, from anywhere
                marked = pipeline.label_match(label) | {"eth_dst": self.ways().to(leave.switch).mac}
                rules.append((leave.switch, FlowMod(pipeline.LABEL, marked, 51, leave.actions(), cookie=cookie)))
            old = self.paths.get((label, kas))
            if old is None and len(self.paths) >= PATHS_KEPT:
                self._forget(*next(iter(self.paths)))
            path = self.paths[label, kas] = LabelPath(label, kas, entry, leave, [name for name, _, _ in hops], rules)
            try:
                await self._replace(old.rules if old else [], rules)
            except ControllerError:
                self._delete(label, [*path.switches, *(old.switches if old else [])])
                self.paths.pop((label, kas), None)
                raise
            return path

    async def _replace(self, old: list[tuple[str, FlowMod]], new: list[tuple[str, FlowMod]]) -> None:
        for name, rule in reversed(new):
            self.south.send(self.domain.switches[name].dpid, [rule])
            await self.settle([name])
        kept = [(name, rule.match) for name, rule in new]
        stale = [(name, rule) for name, rule in old if (name, rule.match) not in kept]
        for name, rule in stale:
            gone = FlowMod(rule.table, rule.match, rule.priority, delete=True, cookie=rule.cookie)
            self.south.send(self.domain.switches[name].dpid, [gone])
        await self.settle([name for name, _ in stale])

    def _lock(self, label: int, kas: int) -> asyncio.Lock:
        if (label, kas) not in self._locks:
            self._locks[label, kas] = asyncio.Lock()
        return self._locks[label, kas]

    def _forget(self, label: int, kas: int) -> list[str]:
        old = self.paths.pop((label, kas), None)
        return self._delete(label, old.switches if old else [])

    def _delete(self, label: int, names: list[str]) -> list[str]:
        for name in names:
            self.south.send(self.domain.switches[name].dpid, [pipeline.label_delete(label)])
        return names

    async def withdraw(self, label: int, kas: int) -> None:
        """Delete a label's rules in a K-AS, if it has any there."""
        await self.settle(self._forget(label, kas))

    async def settle(self, names: list[str]) -> None:
        """Return when these switches have done what they were sent; ``SwitchTimeout`` when one does not say so."""
        await asyncio.gather(*(self.south.barrier(self.domain.switches[n].dpid) for n in dict.fromkeys(names)))

    def broken(self) -> list[LabelPath]:
        """Return the label paths that lead over a port that is down, or over a border that is down at its far end."""

        def dead(path: LabelPath) -> bool:
            outputs = [(n, a.port) for n, rule in path.rules for a in rule.actions if isinstance(a, Output)]
            grouped = [(n, a.group) for n, rule in path.rules for a in rule.actions if isinstance(a, ToGroup)]
            outputs += [(n, failover.port_of(group)) for n, group in grouped]
            return any(not self.domain.leads_on(name, port) for name, port in outputs)

        return [path for path in self.paths.values() if dead(path)]

    # --- packets

    def release(self, packets: Iterable[PacketIn]) -> None:
        """Put packets that were handed up back where they were, now that their rules are there."""
        for packet in packets:
            self.south.send(packet.dpid, [PacketOut((Output(PORT_TABLE),), packet.data, in_port=packet.in_port)])

    def answer(self, host: HostPlan, header: Header, payload: bytes, *, target_port: int = AI_PORT) -> None:
        """Put a message of the DCC out of a host's own port, sealed and encoded here and only here."""
        frames = [
            build_udp(
                Datagram(
                    eth_src=ROUTER_MAC,
                    eth_dst=host.mac,
                    source=DCC_ADDRESS,
                    target=host.address,
                    source_port=AI_PORT,
                    target_port=target_port,
                    payload=self.seal(host, part, piece),
                )
            )
            for part, piece in cut(header, payload)
        ]
        out = (Output(host.port),)
        self.south.send(self.domain.switches[host.switch].dpid, [PacketOut(out, frame) for frame in frames])
