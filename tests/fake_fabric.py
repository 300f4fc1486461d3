"""A network without a network: fake switches that apply FlowMods and GroupMods, and say where a packet goes.

``FakeFabric`` walks packets through the declared network, switch by switch, and holds what the controller must never
cause against every one of them: a loop, a flood, a packet in two places.  ``World`` puts the control centres of a plan
on top of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from controller.border.messages import Ask, Reply, pack, unpack
from controller.dcc import Dcc
from controller.placement.kinds import KasKind, housing
from controller.plugins.engines import Engines
from controller.runtime.loop import Worker
from controller.services import Means
from controller.southbound.frames import ETH_ARP, ETH_IPV4, ETH_LLDP, UDP, Datagram, build_udp, ether_type, parse_udp
from controller.southbound.openflow import (
    PORT_CONTROLLER,
    PORT_IN,
    PORT_TABLE,
    Action,
    Bucket,
    DecTtl,
    DropCount,
    FlowMod,
    Found,
    GroupMod,
    MeterMod,
    Mod,
    Move,
    Output,
    PacketIn,
    PacketOut,
    SetField,
    ToGroup,
)
from controller.store import Store
from packets.events import Emit
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.messages import Ack, AnyMessage, Message, decode_message, encode_message
from packets.parts import Unfinished, cut
from packets.wire import Digest, Flag, Header, PacketType, decode, encode
from topologies.build import Terminal, Wan, build_plan
from topologies.plan import ROUTER_MAC, HostPlan, NetworkPlan

MAX_HOPS = 40


class FabricFault(AssertionError):
    """The controller did what it must not: a loop, a copy, or an output to nowhere."""


@dataclass(frozen=True)
class Packet:
    """A packet as its header fields, by OXM name, and what it carries."""

    fields: dict[str, Any]
    payload: bytes = b""

    def with_(self, **changes: Any) -> Packet:
        return replace(self, fields={**self.fields, **changes})

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)


def from_bytes(frame: bytes) -> Packet:
    """Read the frames that a controller can put out: UDP and LLDP."""
    if ether_type(frame) == ETH_LLDP:
        return Packet({"eth_type": ETH_LLDP}, frame)
    d = parse_udp(frame)
    fields = {
        "eth_type": ETH_IPV4, "eth_src": d.eth_src, "eth_dst": d.eth_dst, "ip_proto": UDP, "ipv4_src": d.source,
        "ipv4_dst": d.target, "udp_src": d.source_port, "udp_dst": d.target_port, "ttl": d.ttl,
    }  # fmt: skip
    return Packet(fields, d.payload)


def to_bytes(packet: Packet) -> bytes:
    """Return the frame of a packet, as a switch hands it up."""
    if packet["eth_type"] == ETH_LLDP:
        return packet.payload
    if packet["ip_proto"] != UDP:
        raise FabricFault(f"nothing but UDP and LLDP is ever handed up, this is {packet.fields}")
    f = packet.fields
    return build_udp(
        Datagram(
            f["eth_src"],
            f["eth_dst"],
            f["ipv4_src"],
            f["ipv4_dst"],
            f["udp_src"],
            f["udp_dst"],
            packet.payload,
            f["ttl"],
        )
    )


def _number(value: int | str) -> int:
    """Return an Ethernet or IPv4 address, or a number, as a number."""
    text = str(value)
    if ":" in text:
        return int(text.replace(":", ""), 16)
    return value if isinstance(value, int) else int(ipaddress.IPv4Address(text))


def matches(flow: FlowMod, packet: Packet, in_port: int) -> bool:
    """Tell whether a flow matches a packet."""
    for name, wanted in flow.match.items():
        have = in_port if name == "in_port" else packet[name]
        if have is None:
            return False
        if isinstance(wanted, tuple):
            value, mask = (_number(x) for x in wanted)
            if _number(have) & mask != value:
                return False
        elif have != wanted:
            return False
    return True


def is_pull(packet: Packet) -> bool:
    """Tell whether a DCC asks a terminal for fresh attributes: the terminals of these tests are silent then."""
    if packet["ipv4_src"] != DCC_ADDRESS:
        return False
    header, _ = decode(packet.payload)
    return header.type is PacketType.TELEMETRY and not header.flags & Flag.REPLY


class FakeSwitch:
    """One switch: its tables, groups and meters."""

    def __init__(
        self, choose: Callable[[int], int] = lambda count: 0, is_up: Callable[[int], bool] = lambda port: True
    ) -> None:
        self.flows: list[FlowMod] = []
        self.groups: dict[int, GroupMod] = {}
        self.meters: dict[int, MeterMod] = {}
        self.choose, self.is_up = choose, is_up
        self.applied = 0
        self.counted: Counter[tuple[int, int, int]] = Counter()

    def apply(self, mod: FlowMod | GroupMod | MeterMod) -> None:
        self.applied += 1
        match mod:
            case GroupMod():
                self.groups.pop(mod.group, None)
                if not mod.delete:
                    self.groups[mod.group] = mod
            case MeterMod():
                self.meters[mod.meter] = mod
            case FlowMod(delete=True):
                self.flows = [f for f in self.flows if not _deleted(mod, f)]
            case FlowMod():
                if mod.goto is not None and mod.goto <= mod.table:
                    raise FabricFault(f"flow back from table {mod.table} to {mod.goto}")
                if mod.meter is not None and mod.meter not in self.meters:
                    raise FabricFault(f"flow through meter {mod.meter}, which is not there")
                for action in mod.actions:
                    if isinstance(action, ToGroup) and action.group not in self.groups:
                        raise FabricFault(f"flow to group {action.group}, which is not there")
                same = (mod.table, mod.priority, mod.match)
                self.flows = [f for f in self.flows if (f.table, f.priority, f.match) != same] + [mod]

    def lookup(self, table: int, packet: Packet, in_port: int) -> FlowMod | None:
        """Return the flow that takes a packet; a tie between two different flows is a fault of the controller."""
        found = [f for f in self.flows if f.table == table and matches(f, packet, in_port)]
        best = [f for f in found if f.priority == max(g.priority for g in found)]
        if len(best) > 1:
            raise FabricFault(f"two flows of priority {best[0].priority} want one packet: {best}")
        return best[0] if best else None

    def process(self, packet: Packet, in_port: int) -> list[tuple[int, Packet, int]]:
        """Return (port, packet, table) for everything that leaves the switch."""
        out: list[tuple[int, Packet, int]] = []
        table: int | None = 0
        while table is not None:
            flow = self.lookup(table, packet, in_port)
            if flow is None:
                return out
            self.counted[flow.cookie, flow.table, flow.priority] += 1
            alive = self._act(flow.actions, packet, in_port, flow.table, out)
            if alive is None:
                return out
            packet, table = alive, flow.goto
        return out

    def _act(
        self, actions: tuple[Action, ...], packet: Packet, in_port: int, table: int, out: list[tuple[int, Packet, int]]
    ) -> Packet | None:
        for action in actions:
            match action:
                case SetField(name, value):
                    packet = packet.with_(**{name: value})
                case Move(source, target, _):
                    packet = packet.with_(**{target: packet[source]})
                case DecTtl():
                    if packet["ttl"] <= 1:
                        return None
                    packet = packet.with_(ttl=packet["ttl"] - 1)
                case ToGroup(group):
                    bucket = self._bucket(self.groups[group])
                    if bucket is None or self._act(bucket.actions, packet, in_port, table, out) is None:
                        return None
                case Output(port) if port == PORT_IN:
                    out.append((in_port, packet, table))
                case Output(port) if port != packet.fields.get("in_port_nxm", in_port):
                    out.append((port, packet, table))
        return packet

    def _bucket(self, group: GroupMod) -> Bucket | None:
        if group.failover:
            return next((b for b in group.buckets if self.is_up(b.watch_port or 0)), None)
        return group.buckets[self.choose(len(group.buckets))]


def _deleted(mod: FlowMod, flow: FlowMod) -> bool:
    if mod.table != flow.table:
        return False
    if mod.match or mod.strict:
        return (mod.match, mod.priority) == (flow.match, flow.priority)
    return not mod.cookie or mod.cookie == flow.cookie


@dataclass
class Journey:
    """What became of one packet: the switches it crossed, with its destination there, and where it ended."""

    hops: list[tuple[str, str]] = field(default_factory=list)
    delivered: list[tuple[str, Packet]] = field(default_factory=list)
    punted: int = 0

    @property
    def switches(self) -> list[str]:
        return [name for name, _ in self.hops]

    @property
    def ends(self) -> list[str]:
        return [name for name, _ in self.delivered]


class FakeFabric:
    """All switches of a plan and the wires between them; the southbound of every control centre on it."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.switches = {s.name: FakeSwitch(is_up=partial(self._is_up, s.name)) for s in plan.switches}
        self.names = {s.dpid: s.name for s in plan.switches}
        self.cores: dict[int, Any] = {}
        self.down: set[tuple[str, int]] = set()
        self.pulls: list[Packet] = []
        self.inbox: dict[str, list[Packet]] = {h.name: [] for h in plan.hosts}
        self.sent: list[tuple[str, Mod]] = []
        self.journeys: list[Journey] = []
        self.deaf: set[str] = set()
        self.slow_s: dict[str, float] = {}
        self.on_request: Callable[[str, Packet], bool] = lambda host, packet: False
        self._wire: dict[tuple[str, int], tuple[str, int]] = {}
        for link in plan.links:
            self._wire[link.a, link.a_port] = link.b, link.b_port
            self._wire[link.b, link.b_port] = link.a, link.a_port

    def _is_up(self, name: str, port: int) -> bool:
        return (name, port) not in self.down and self._wire.get((name, port)) not in self.down

    # --- southbound

    def send(self, dpid: int, mods: list[Mod]) -> None:
        name = self.names[dpid]
        for mod in mods:
            self.sent.append((name, mod))
            if isinstance(mod, PacketOut):
                self._packet_out(name, mod)
            else:
                self.switches[name].apply(mod)

    async def barrier(self, dpid: int, timeout_s: float = 5.0) -> None:
        from controller.errors import SwitchTimeout

        await asyncio.sleep(0)
        if self.names[dpid] in self.deaf or self.slow_s.get(self.names[dpid], 0.0) > timeout_s:
            raise SwitchTimeout(f"switch {self.names[dpid]} did not answer a barrier")
        self.sent.append((self.names[dpid], "barrier"))  # type: ignore[arg-type]

    def ask_port_counts(self, dpid: int) -> None:
        pass

    def ask_drop_counts(self, dpid: int) -> None:
        name = self.names[dpid]
        counts = [DropCount(*rule, packets) for rule, packets in self.switches[name].counted.items()]
        self.cores[dpid].drop_counts(dpid, counts)

    async def found(self, dpid: int, *, meters: bool, timeout_s: float = 5.0) -> Found:
        await asyncio.sleep(0)
        switch = self.switches[self.names[dpid]]
        metered = [replace(m, modify=False) for m in switch.meters.values()] if meters else []
        return Found(list(switch.flows), [replace(g, modify=False) for g in switch.groups.values()], metered)

    def _packet_out(self, name: str, mod: PacketOut) -> None:
        packet = from_bytes(mod.data)
        journey = Journey()
        self.journeys.append(journey)
        for action in mod.actions:
            assert isinstance(action, Output), "a packet-out of ours only outputs"
            if action.port == PORT_TABLE:
                self._switch(name, mod.in_port, packet, journey)
            else:
                self._emit(name, action.port, packet, journey)

    # --- the wires

    def inject(self, host: HostPlan, packet: Packet) -> Journey:
        """A host sends a packet; it is walked to its end."""
        journey = Journey()
        self._switch(host.switch, host.port, packet, journey)
        return journey

    def _switch(self, name: str, in_port: int, packet: Packet, journey: Journey) -> None:
        journey.hops.append((name, packet["ipv4_dst"] or ""))
        if len(journey.hops) > MAX_HOPS:
            raise FabricFault(f"loop: {journey.switches[-8:]}")
        out = self.switches[name].process(packet, in_port)
        if len(out) > 1:
            raise FabricFault(f"{name} makes {len(out)} packets of one")
        for port, left, table in out:
            changed = Packet({k: v for k, v in left.fields.items() if k != "in_port_nxm"}, left.payload)
            if port == PORT_CONTROLLER:
                journey.punted += 1
                dpid = next(d for d, n in self.names.items() if n == name)
                if dpid in self.cores:
                    self.cores[dpid].packet_in(PacketIn(dpid, in_port, table, to_bytes(changed)))
            else:
                self._emit(name, port, changed, journey)

    def _emit(self, name: str, port: int, packet: Packet, journey: Journey) -> None:
        if (name, port) not in self._wire:
            raise FabricFault(f"{name} puts a packet out of port {port}, where nothing is plugged in")
        other, other_port = self._wire[name, port]
        if (name, port) in self.down or (other, other_port) in self.down:
            return
        if other in self.switches:
            self._switch(other, other_port, packet, journey)
        elif packet["ipv4_src"] != DCC_ADDRESS or not self.on_request(other, packet):
            journey.delivered.append((other, packet))
            (self.pulls if is_pull(packet) else self.inbox[other]).append(packet)

    def unplug(self, a: str, b: str) -> None:
        """Take a link down; both ends tell their control centre."""
        self._plug(a, b, up=False)

    def plug(self, a: str, b: str) -> None:
        self._plug(a, b, up=True)

    def _plug(self, a: str, b: str, *, up: bool) -> None:
        link = next(k for k in self.plan.links if {k.a, k.b} == {a, b})
        for name, port in ((link.a, link.a_port), (link.b, link.b_port)):
            if name in self.switches:
                (self.down.discard if up else self.down.add)((name, port))
                dpid = next(d for d, n in self.names.items() if n == name)
                if dpid in self.cores:
                    self.cores[dpid].port_changed(dpid, port, up)


# --- packets that terminals send


def udp(host: HostPlan, target: str, payload: bytes = b"x", *, port: int = 9, ttl: int = 64) -> Packet:
    fields = {
        "eth_type": ETH_IPV4, "eth_src": host.mac, "eth_dst": ROUTER_MAC, "ip_proto": UDP, "ipv4_src": host.address,
        "ipv4_dst": target, "udp_src": AI_PORT, "udp_dst": port, "ttl": ttl,
    }  # fmt: skip
    return Packet(fields, payload)


def arp(host: HostPlan, target: str, *, sender: str | None = None) -> Packet:
    fields = {
        "eth_type": ETH_ARP, "eth_src": host.mac, "eth_dst": "ff:ff:ff:ff:ff:ff", "arp_op": 1, "arp_sha": host.mac,
        "arp_spa": sender or host.address, "arp_tha": "00:00:00:00:00:00", "arp_tpa": target,
    }  # fmt: skip
    return Packet(fields)


def launch(object_id: int, visit: int, kind: PacketType = PacketType.MODEL_SHARD) -> bytes:
    """Return the launch packet of an object."""
    header = Header(
        type=kind, flags=Flag.LAUNCH, object_id=object_id, transfer_id=object_id & 0xFFFF | visit << 16, shard_count=2,
        total_length=2000, visit=visit, visit_limit=99, digest=Digest.of(b"object"),
    )  # fmt: skip
    return encode(header)


# --- control centres on the fabric


def small_plan() -> NetworkPlan:
    """Four K-AS as in Fig. 3 (hospitals, facilities, two MPVUs, two MDFPs, owner, asker), a ring with a chord."""
    special = {
        1: [Terminal("mdfp1", "mdfp"), Terminal("owner1", "model_owner")],
        2: [Terminal("mpvu2", "mpvu")],
        3: [Terminal("mdfp3", "mdfp")],
        4: [Terminal("mpvu4", "mpvu"), Terminal("asker4", "query_owner")],
    }
    common = {
        k: [Terminal(f"h{k}1", "data"), Terminal(f"h{k}3", "data", data_may_move=True), Terminal(f"c{k}", "compute")]
        for k in special
    }
    wan = [Wan(1, 2), Wan(2, 3), Wan(3, 4), Wan(4, 1), Wan(1, 3, delay_ms=20.0)]
    return build_plan("fake", kas={k: common[k] + special[k] for k in special}, wan=wan)


class World:
    """A fabric with its control centres (one per K-AS, or one for all) in one event loop, under a clock of its own."""

    def __init__(
        self,
        plan: NetworkPlan,
        *,
        together: bool = False,
        engines: Engines | Mapping[int, Engines] | None = None,
        kinds: Mapping[int, KasKind] | None = None,
    ) -> None:
        self.plan, self.fabric, self.kinds = plan, FakeFabric(plan), kinds or {}
        self.now_s = 1000.0
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.hosts = {h.name: h for h in plan.hosts}
        self.mute: set[int] = set()
        self.by_kas: dict[int, Dcc] = {}
        domains = [plan.kas_numbers] if together else [[k] for k in plan.kas_numbers]
        self.dccs = [self._dcc(k, engines[k[0]] if isinstance(engines, Mapping) else engines) for k in domains]
        self._transfers = 0
        self.asked: list[tuple[str, AnyMessage]] = []
        self.speechless: set[str] = set()
        self.says: Callable[[str, AnyMessage], Message] = lambda name, message: Ack()
        self._parts: Unfinished[None] = Unfinished()
        self.fabric.on_request = self._obey

    def _obey(self, name: str, packet: Packet) -> bool:
        """A terminal does what its DCC asks for, and says so (unless ``speechless``); it takes no notice of probes."""
        header, payload = decode(packet.payload)
        if header.flags & Flag.REPLY or header.type not in (PacketType.ANNOUNCE, PacketType.PROBE):
            return False
        whole = self._parts.take(name, header, bytes(payload), None)
        if whole is None:
            return True
        if header.type is PacketType.ANNOUNCE and name not in self.speechless:
            self.asked.append((name, decode_message(whole[0])))
            answer = Header(type=PacketType.ANNOUNCE, flags=Flag.REPLY, transfer_id=header.transfer_id)
            said = encode_message(self.says(name, self.asked[-1][1]))
            loop = asyncio.get_running_loop()
            for part, piece in cut(answer, said):
                loop.call_soon(self.send, name, DCC_ADDRESS, encode(part, piece))
        return True

    def _dcc(self, kas: list[int], engines: Engines | None) -> Dcc:
        name = f"dcc{kas[0]}"
        emit = self._voice(name)
        means = Means(
            south=self.fabric, worker=Worker(emit), store=Store(), clock=lambda: self.now_s, emit=emit,
            ask_border=self._ask, seed=7, groups={"vignettes": ["cardiology", "neurology"]}, engines=engines,
            housing=housing(self.kinds, kas[0]),
        )  # fmt: skip
        dcc = Dcc(self.plan.domain(*kas), means)
        for switch in dcc.domain.plan.switches:
            self.fabric.cores[switch.dpid] = dcc.fabric
        self.by_kas |= dict.fromkeys(kas, dcc)
        return dcc

    def _voice(self, name: str) -> Emit:
        def emit(kind: str, /, **data: Any) -> None:
            self.events.append((name, kind, data))

        return emit

    async def _ask(self, kas: int, body: Ask) -> Reply:
        """Cross a border: through the wire format, both ways."""
        from controller.errors import BorderSilent

        if kas in self.mute:
            raise BorderSilent(f"the DCC of K-AS {kas} did not answer")
        asked = unpack(pack(1, body)[4:]).body
        reply = await self.by_kas[kas].serving.serve(asked)  # type: ignore[arg-type]
        return unpack(pack(1, reply)[4:]).body  # type: ignore[return-value]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of all events of a kind."""
        return [data for _, k, data in self.events if k == kind]

    async def settle(self) -> None:
        """Let the control centres finish what they are at."""
        for _ in range(3):
            for dcc in self.dccs:
                await dcc.fabric.worker.idle()

    async def start(self, *, meters: bool = True) -> None:
        """Connect every switch."""
        for switch in self.plan.switches:
            ports = {k.a_port for k in self.plan.links if k.a == switch.name}
            ports |= {k.b_port for k in self.plan.links if k.b == switch.name}
            self.fabric.cores[switch.dpid].switch_up(switch.dpid, ports, meters)
        await self.settle()

    # --- what terminals do

    def send(self, name: str, target: str, payload: bytes, *, port: int = AI_PORT, ttl: int = 64) -> Journey:
        host = self.hosts[name]
        return self.fabric.inject(host, udp(host, target, payload, port=port, ttl=ttl))

    async def tell(self, name: str, message: Message, kind: PacketType = PacketType.ANNOUNCE) -> AnyMessage:
        """A terminal asks its DCC; returns the answer that came out of its port."""
        self._transfers += 1
        header = Header(type=kind, transfer_id=self._transfers, object_id=getattr(message, "object_id", 0))
        before = len(self.fabric.inbox[name])
        self.send(name, DCC_ADDRESS, encode(header, encode_message(message)))
        await self.settle()
        parts, answers = Unfinished[None](), list[tuple[Header, bytes]]()
        for packet in self.fabric.inbox[name][before:]:
            answered, piece = decode(packet.payload)
            whole = parts.take(name, answered, bytes(piece), None)
            answers += [(answered, whole[0])] if whole else []
        assert len(answers) == 1, f"{name} got {len(answers)} answers to {message}"
        answered, said = answers[0]
        assert answered.flags & Flag.REPLY and answered.transfer_id == self._transfers
        return decode_message(said)

    async def launch(
        self, name: str, object_id: int, visit: int, kind: PacketType = PacketType.MODEL_SHARD
    ) -> list[str]:
        """A terminal launches an object; returns the terminals that its packet reached."""
        from packets.labels import label_address, object_label

        before = {n: len(inbox) for n, inbox in self.fabric.inbox.items()}
        self.send(name, label_address(object_label(object_id)), launch(object_id, visit, kind))
        await self.settle()
        return [n for n, inbox in self.fabric.inbox.items() if len(inbox) > before[n]]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine; a stuck one fails."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())
