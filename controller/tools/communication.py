"""Communication and networking management: the service that owns the switches of a domain.

Path service (ordinary routes, label paths), flow service (rules in, barrier answered, rules out) and announce service
(packets released, answers put out).  It knows no job: it is told entries and exits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from controller.domain import Domain
from controller.errors import ControllerError, SteeringError
from controller.runtime.bounded import Bounded
from controller.southbound import failover, guard, pipeline
from controller.southbound.failover import Ways
from controller.southbound.frames import Datagram, build_udp
from controller.southbound.guard import closed_mods
from controller.southbound.openflow import (
    PORT_TABLE,
    FlowMod,
    GroupMod,
    Mod,
    Output,
    PacketIn,
    PacketOut,
    Southbound,
    ToGroup,
)
from controller.southbound.reconcile import Change, key, reconcile
from controller.store import Store
from controller.tools.classes import Classes
from controller.tools.exits import Entry, Exit
from packets.events import Emit
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.parts import cut
from packets.wire import Header, encode
from topologies.plan import ROUTER_MAC, HostPlan

PATHS_KEPT = 8192  # of labels; the one laid longest ago is given back
LABEL_PRIORITY = 50
PREPARE_S = 60.0  # a switch that is given its first rules shares the machine with all the others that start


@dataclass
class LabelPath:
    """The rules of one label in one K-AS: ``hops`` from the entry on, each a switch, the port in and the port (or the
    group) out; ``marked``: the address under which detours lead it to the last one ('': there are none).

    ``laid``: every switch has confirmed its rule, and no older one is left.
    """

    label: int
    kas: int
    entry: Entry
    exit: Exit
    hops: list[tuple[str, int, int]]
    marked: str = ""
    laid: bool = False

    @property
    def switches(self) -> list[str]:
        """The switches that it crosses."""
        return [name for name, _, _ in self.hops]

    @property
    def rules(self) -> list[tuple[str, FlowMod]]:
        """The rule of each switch."""
        last, cookie = len(self.hops) - 1, pipeline.label_cookie(self.label)
        found = list[tuple[str, FlowMod]]()
        for i, (name, port, out) in enumerate(self.hops):
            actions = self.exit.actions() if i == last else failover.out_of(out)
            match = pipeline.label_match(self.label, port)
            found.append((name, FlowMod(pipeline.LABEL, match, LABEL_PRIORITY, actions, cookie=cookie)))
        if self.marked:
            match = pipeline.label_match(self.label) | {"eth_dst": self.marked}
            marked = FlowMod(pipeline.LABEL, match, LABEL_PRIORITY + 1, self.exit.actions(), cookie=cookie)
            found.append((self.exit.switch, marked))
        return found


class Communication:
    """Routes, label paths and packets of one domain."""

    def __init__(self, domain: Domain, south: Southbound, emit: Emit, store: Store) -> None:
        self.domain, self.south, self.emit, self.store = domain, south, emit, store
        self.connected: set[str] = set()
        self.paths = store.kept("label paths", tuple[int, int], LabelPath)
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

    async def prepare(self, name: str, *, meters: bool) -> Change:
        """Have a switch that has connected hold everything it needs, barrier answered; raises ``SwitchTimeout``.

        What it holds already is adopted: it may be a new bridge, one whose session broke, or one that went on
        forwarding while this control centre was dead. Returns what that took; ``clear`` does what is ``last`` of it.
        """
        switch = self.domain.switches[name]
        found = await self.south.found(switch.dpid, meters=meters, timeout_s=PREPARE_S)
        routes = self._wanted_routes()[name]
        self._groups[name] = {g.group: g for g in found.groups if g.failover}
        self._regroup(name)
        base = pipeline.base_mods(self.domain, switch, meters=meters)
        base += guard.switch_mods(self.domain, switch, meters=meters, own_source=self.own_source)
        mods = [*base, *self._closed(name), *self._groups[name].values(), *routes, *self._of_objects(name)]
        change = reconcile(found, mods, self._spared)
        self.south.send(switch.dpid, change.first)
        await self.south.barrier(switch.dpid, PREPARE_S)
        self._routes[name] = routes
        self._seen.add(name)
        self.connected.add(name)
        # what was laid meanwhile may have been refused: no group stood yet
        self.south.send(switch.dpid, [mod for mod in self._of_objects(name) if mod not in mods])
        self.reroute()  # links may have come or gone meanwhile
        return change

    def _of_objects(self, name: str) -> list[Mod]:
        """Return what a switch should hold of objects, models and classes of queries."""
        labels = [rule for path in self.paths.values() for at, rule in path.rules if at == name]
        return [*self.classes.rules_of(name), *labels]

    def _closed(self, name: str) -> list[Mod]:
        """Return what keeps the AI traffic of revoked terminals out at a switch."""
        shut = [h for h in self.domain.plan.hosts if h.switch == name and h.name in self.closed]
        return [mod for host in shut for mod in closed_mods(host)]

    def clear(self, name: str, change: Change) -> None:
        """Delete what was too much at a switch, and still is."""
        now = [*self._of_objects(name), *self._closed(name), *self._routes.get(name, [])]
        flows = {key(m) for m in now if isinstance(m, FlowMod)}
        groups = {m.group for m in now if isinstance(m, GroupMod)}
        gone = [
            m for m in change.last
            if not (key(m) in flows if isinstance(m, FlowMod) else isinstance(m, GroupMod) and m.group in groups)
        ]  # fmt: skip
        self.south.send(self.domain.switches[name].dpid, gone)

    def _spared(self, flow: FlowMod) -> bool:
        """Tell whether a flow that nobody wants stays all the same: of a label of which nothing is known any more."""
        return self.store.damaged and bool(flow.cookie & (pipeline.LABEL_COOKIE | pipeline.CLASS_COOKIE))

    async def resume(self) -> None:
        """Lay to the end what an earlier life had begun to lay."""
        for path in [p for p in self.paths.values() if not p.laid]:
            try:
                await self.steer(path.label, path.kas, path.entry, path.exit)
            except ControllerError as error:
                self.emit("warning", text=f"label {path.label:#x} in K-AS {path.kas}: {error}")

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

    def note_ports(self, name: str, ports: set[int], *, all_there: bool = False) -> None:
        """Take which ports of a switch are up; what is not counts as down once it was, or ``all_there``."""
        declared = [p for at, p in [*self.domain.trunks, *self.domain.borders, *self.domain.host_at] if at == name]
        for port in declared:
            if port in ports:
                self.domain.down.discard((name, port))
            elif name in self._seen or all_there:
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

    def _hops(self, entry: Entry, leave: Exit) -> list[tuple[str, int, int]]:
        """Return (switch, port in, port or group out) along the shortest live path."""
        way, hops, in_port = self.ways().to(leave.switch), [], entry.port
        for name in self.switch_path(entry.switch, leave.switch)[:-1]:
            (onward,) = way.onward(name)
            hops.append((name, in_port, onward.group if isinstance(onward, ToGroup) else way.towards[name]))
            far = self.domain.far_end(name, way.towards[name])
            in_port = far[1] if far else 0
        if (leave.switch, leave.port) == (entry.switch, entry.port):
            raise SteeringError(f"{leave.switch} port {leave.port}: the object is there already")
        return [*hops, (leave.switch, in_port, leave.port)]

    async def steer(self, label: int, kas: int, entry: Entry, leave: Exit) -> LabelPath:
        """Lead a label through a K-AS; returns once every switch has its rule, and no older one is left.

        Make before break: from the far end to the entry, each switch confirmed before the one ahead of it sends there,
        so packets under way find either the old path whole or the new one.  On an error no rule of the label stays.
        """
        async with self._lock(label, kas):
            hops = self._hops(entry, leave)
            # What comes by a detour, comes from anywhere.
            grouped = any(out >= failover.GROUP_BASE for _, _, out in hops)
            marked = self.ways().to(leave.switch).mac if grouped else ""
            old = self.paths.get((label, kas))
            if old is None and len(self.paths) >= PATHS_KEPT:
                self._forget(*next(iter(self.paths)))
            path = self.paths[label, kas] = LabelPath(label, kas, entry, leave, hops, marked)
            try:
                await self._replace(old.rules if old else [], path.rules)
            except ControllerError:
                self._delete(label, [*path.switches, *(old.switches if old else [])])
                self.paths.pop((label, kas), None)
                raise
            path.laid = True
            self.paths[label, kas] = path
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
