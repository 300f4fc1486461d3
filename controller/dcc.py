"""The DA-ITN control centre of a domain: what happens in its network comes in here and goes to whom it concerns.

No OpenFlow library, no socket and no clock of its own: all are passed in (``controller.__main__`` does it), so the
whole of it runs in a unit test against a fake flow table.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.access.authenticity import Gate
from controller.access.calls import Line
from controller.access.gathering import NEWS_S, Gathering
from controller.access.places import Places
from controller.access.requests import Terminals
from controller.border.messages import (
    Announce,
    Ask,
    AskFacilities,
    AskModels,
    AskNextStop,
    AskOptions,
    Book,
    Done,
    Evidence,
    Facilities,
    Forward,
    HandOver,
    Interrupt,
    LinkState,
    Lost,
    Models,
    No,
    Options,
    Release,
    Reply,
    Spread,
    Stop,
    Withdraw,
)
from controller.brains import Brains
from controller.domain import Domain
from controller.errors import BorderError, ControllerError, FrameError, SteeringError
from controller.inference.queries import Queries
from controller.runtime.loop import Table, Worker
from controller.services import Kit
from controller.southbound.discovery import Discovery
from controller.southbound.frames import ETH_LLDP, Datagram, ether_type, ipv4_source, parse_udp, parse_unreachable
from controller.southbound.openflow import PacketIn, PortCount, Southbound
from controller.southbound.pipeline import CLASSIFY
from controller.southbound.rate_limit import Limiter
from controller.steering.announced import Objects
from controller.steering.launch import Steering
from controller.steering.resteer import Resteering
from controller.store import Store
from controller.tools.communication import Communication
from controller.tools.location import Location
from controller.tools.process import Processes
from controller.tools.sensing import Sensing
from controller.topology.errors import TopologyError
from controller.topology.krrm import Krrm
from controller.training.recovery import Custody
from controller.training.rivals import Rivals
from controller.training.standing import Trusting
from controller.training.submission import Identities, Training, refusal
from packets.errors import PacketError
from packets.events import Emit
from packets.labels import AI_PORT, DCC_LABEL, address_label, is_class_label
from packets.messages import Ask as Query
from packets.messages import decode_message, encode_message
from packets.security.keeper import Keeper
from packets.wire import SHARD_TYPES, Flag, Header, PacketType, decode, encode
from topologies.plan import DomainPlan, HostPlan

AskBorder = Callable[[int, Ask], Awaitable[Reply]]
STALE_S = 3.0  # what a cut rests on and is older is pulled first
Word = Withdraw | Lost | HandOver | Release | Spread | LinkState | Evidence | Interrupt | Book
ASKED_OBJECT = (AskNextStop, Lost)
WATCH_S = 0.25
SUSPECT_S = 6.0


@dataclass
class Means:
    """What a control centre is given to work with. ``seed`` None: handles are not repeatable."""

    south: Southbound
    worker: Worker
    store: Store
    clock: Callable[[], float]
    emit: Emit
    ask_border: AskBorder
    seed: int | None = None
    groups: dict[str, list[str]] | None = None
    brains: Brains | None = None
    keeper: Keeper | None = None
    any_source: bool = False


class Dcc:
    """The core of one control centre process."""

    def __init__(self, plan: DomainPlan, means: Means) -> None:
        self.domain = Domain(plan)
        self.worker, self.emit, self.clock = means.worker, means.emit, means.clock
        self._ask_border = means.ask_border
        self.kit = kit = self._make_kit(means)
        brains = means.brains or Brains()
        identities = Identities()
        self.places = Places(kit)
        self.training = Training(kit, identities, brains)
        self.objects = Objects(kit, identities, brains, self.places)
        self.steering = Steering(kit, self.places)
        self.line = Line(kit.communication)
        kit.processes.tell = self.line.ask
        self.resteering = Resteering(kit, self.steering, self.line)
        self.queries = Queries(kit, brains, self.places)
        self.gathering = Gathering(kit)
        self.trusting = Trusting(kit, self.gathering)
        self.terminals = Terminals(kit, self.training, self.objects, self.places, self.gathering)
        self.discovery = Discovery(self.domain, means.south, means.emit)
        self.sensing = Sensing(self.domain, means.emit)
        self.rivals = Rivals(kit, self.places, self.sensing, self.steering.legs)
        self.limiter = Limiter(means.clock, means.emit)
        self.custody = Custody(kit, self.training, self.worker.spawn)
        self.terminals.on_trained = self.trusting.trained
        self.terminals.on_leave = self.resteering.withdrawn
        self.gate = Gate(means.keeper, means.clock, means.emit)
        kit.communication.seal = self.gate.seal
        kit.communication.own_source = means.keeper is not None and not means.any_source
        self.on_ready: Callable[[], None] = lambda: None
        self._ready = False

    def _make_kit(self, means: Means) -> Kit:
        seed, numbers = means.seed, sorted(self.domain.kas)
        # under a seed, handles repeat from run to run: a planner breaks ties by them
        salt = (
            os.urandom(32) if seed is None else hashlib.blake2b(f"{seed}/{numbers}".encode(), digest_size=32).digest()
        )
        krrm = Krrm()
        return Kit(
            domain=self.domain,
            clock=means.clock,
            emit=means.emit,
            store=means.store,
            krrm=krrm,
            communication=Communication(self.domain, means.south, means.emit),
            location=Location(self.domain),
            processes=Processes(self.domain, krrm),
            ask=self.ask,
            salt=salt,
            groups=means.groups or {},
        )

    def table(self) -> Table:
        """Return the periodic duties: {name: (method, period in seconds)}."""
        return {
            "port counters": (self._poll_ports, 1.0),
            "link verification": (self.discovery.probe, 5.0),
            "liveness": (self._look_for_dead, 1.0),
            "watch over rendezvous": (self._watch, WATCH_S),
            "second thoughts": (self.custody.reconsider, 1.0),
            "query weights": (self.queries.reweigh, 2.0),
            "packet-in limits": (self.limiter.tell, 1.0),
            "refusals": (self.gate.tell, 1.0),
            "map news": (self.gathering.tell, NEWS_S),
            "map cost": (self.gathering.tell_cost, 1.0),
        }

    # --- switches (the shim calls these)

    def switch_up(self, dpid: int, ports: set[int], meters: bool) -> None:
        """A switch has connected."""
        if dpid not in self.domain.by_dpid:
            self.emit("warning", text=f"switch {dpid} connected, but is not in the plan of this DCC: left alone")
            return
        self.worker.spawn(self._prepare(dpid, ports, meters), f"prepare switch {dpid}")

    async def _prepare(self, dpid: int, ports: set[int], meters: bool) -> None:
        communication = self.kit.communication
        await communication.prepare(self.domain.by_dpid[dpid].name, ports, meters=meters)
        if communication.complete and not self._ready:
            self._ready = True
            for kas in sorted(self.domain.kas):
                self.emit("dcc.ready", kas=kas)
            self.on_ready()
            self.discovery.probe()

    def switch_down(self, dpid: int) -> None:
        """A switch's session has ended; it goes on forwarding by the rules it has."""
        if dpid in self.domain.by_dpid:
            name = self.domain.by_dpid[dpid].name
            self.kit.communication.lost(name)
            self.emit("warning", text=f"switch {name} has disconnected")

    def switch_error(self, dpid: int, text: str) -> None:
        """A switch refused something."""
        switch = self.domain.by_dpid.get(dpid)
        self.emit("error", text=f"switch {switch.name if switch else dpid}: {text}")

    def port_changed(self, dpid: int, port: int, up: bool) -> None:
        """A port went down or came up: route around it, mend label paths, tell the other K-AS of a border."""
        switch = self.domain.by_dpid.get(dpid)
        if switch is None or ((switch.name, port) not in self.domain.down) == up:
            return
        (self.domain.down.discard if up else self.domain.down.add)((switch.name, port))
        self.worker.spawn(self._links_changed(switch.name, port, up), f"port {port} of {switch.name}")

    async def _links_changed(self, name: str, port: int, up: bool) -> None:
        border, host = self.domain.borders.get((name, port)), self.domain.host_at.get((name, port))
        if host is not None and not up:
            self._dead(host.name, "is cut off")
        if border is not None:
            await self._border_changed(self.domain.switches[name].kas, border.neighbour_kas, up)
        self.kit.communication.reroute()
        self._look_for_dead()
        await self.resteering.repair()

    async def _border_changed(self, kas: int, neighbour: int, up: bool) -> None:
        self._set_kas_link(kas, neighbour, up)
        self.emit("warning", text=f"link between K-AS {kas} and K-AS {neighbour} is {'up' if up else 'down'}")

        async def tell(other: int) -> None:
            try:
                await self.kit.must(LinkState(kas=other, a_kas=kas, b_kas=neighbour, up=up))
            except BorderError as error:
                self.emit("warning", text=str(error))

        await asyncio.gather(*(tell(k) for k in self.kit.all_kas if k not in self.domain.kas))

    def _hear_of_link(self, link: LinkState) -> None:
        """Another DCC tells of a border; both of its ends do, and it is news once."""
        known_up = frozenset((link.a_kas, link.b_kas)) not in self.domain.down_kas
        self._set_kas_link(link.a_kas, link.b_kas, link.up)
        if known_up != link.up:
            self.kit.communication.reroute()
            self.worker.spawn(self.resteering.repair(), "repair of label paths")

    def _set_kas_link(self, a: int, b: int, up: bool) -> None:
        (self.domain.down_kas.discard if up else self.domain.down_kas.add)(frozenset((a, b)))

    def port_counts(self, dpid: int, counts: list[PortCount]) -> None:
        """A switch's counters came."""
        if dpid in self.domain.by_dpid:
            self.sensing.counted(dpid, counts, self.clock(), self.discovery.peers)

    def _poll_ports(self) -> None:
        for name in self.kit.communication.connected:
            self.kit.communication.south.ask_port_counts(self.domain.switches[name].dpid)

    def _look_for_dead(self) -> None:
        now_s = self.clock()
        for name in self.kit.processes.dead(now_s):
            self._dead(name, "has fallen silent" if self.kit.processes.reachable(name) else "is cut off")
        watched = {a.node for a in self.kit.location.expected()}
        for name in watched.intersection(self.kit.krrm.stale(now_s, SUSPECT_S)):
            self._dead(name, "has fallen silent")

    def _dead(self, name: str, reason: str) -> None:
        """Take a terminal for dead: off the map, and what was on its way to it goes elsewhere."""
        if name in self.kit.krrm:
            self.gathering.gone(name)
            self.emit("agent.gone", name=name, reason=reason)
        self.worker.spawn(self.resteering.node_lost(name, reason), f"loss of {name}")

    def _watch(self) -> None:
        """Knock where an object is awaited or worked on: a live agent takes no notice, a dead one's host says so."""
        for name in {a.node for a in self.kit.location.expected()}:
            self.kit.communication.answer(self.domain.hosts[name], encode(Header(type=PacketType.PROBE), b""))

    # --- packets

    def packet_in(self, packet: PacketIn) -> None:
        """A switch handed a packet up: find out what it is; whatever is wrong with it is counted and told, no more."""
        try:
            if ether_type(packet.data) == ETH_LLDP:
                self.discovery.heard(packet.dpid, packet.in_port, packet.data)
                return
            host = self.kit.location.host_behind(packet.dpid, packet.in_port)
            if host is None:
                raise FrameError(f"switch {packet.dpid} port {packet.in_port} has no declared terminal")
            if not self.limiter.allow(packet.dpid, packet.in_port):
                return
            if packet.table == CLASSIFY:
                self._unreachable(packet, host)
            else:
                self._ai_packet(packet, host)
        except (FrameError, PacketError, ValueError, KeyError) as error:
            reason = error.reason if isinstance(error, PacketError) else "frame"
            text = str(error)[:400]
            self.emit("packet.refused", reason=reason, text=text, switch=packet.dpid, port=packet.in_port)

    def _unreachable(self, packet: PacketIn, host: HostPlan) -> None:
        """A host's kernel says that nobody listens: at its AI port that means that its agent has ended."""
        if (source := ipv4_source(packet.data)) != host.address:
            self.gate.spoofed(host, source)
        elif parse_unreachable(packet.data) == (host.address, AI_PORT) and self._is_news(host.name):
            self._dead(host.name, "has no agent any more")

    def _is_news(self, name: str) -> bool:
        return name in self.kit.krrm or bool(self.kit.location.expected(name))

    def _ai_packet(self, packet: PacketIn, host: HostPlan) -> None:
        datagram = parse_udp(packet.data)
        if datagram.source != host.address:
            raise FrameError(f"{host.name} sent with the address of another, {datagram.source}")
        header, payload = decode(datagram.payload)
        label = address_label(datagram.target)
        if not self.gate.passes(host, header, datagram.payload, label):
            return
        if self.kit.location.first_seen(host.name):
            self.emit("host.confirmed", name=host.name, kas=host.kas, switch=host.switch, port=host.port)
        if label == DCC_LABEL and header.flags & Flag.REPLY:
            self.line.answered(host, header, bytes(payload))
            return
        if label == DCC_LABEL and header.type is PacketType.TELEMETRY:
            try:
                self.terminals.telemetry(host, header, bytes(payload), datagram.source_port, len(packet.data))
            except Exception as error:
                self.worker.report(error, f"report of {host.name}")
            return
        if label == DCC_LABEL:
            work = self.terminals.request(host, header, bytes(payload), datagram.source_port)
            self.worker.spawn(work, f"request of {host.name}")
            return
        self.emit("packet.in", kas=host.kas, switch=host.switch, label=label, node=host.name)
        self.worker.spawn(self._steer(packet, host, header, bytes(payload), label, datagram), f"steer for {host.name}")

    async def _steer(
        self, packet: PacketIn, host: HostPlan, header: Header, payload: bytes, label: int, datagram: Datagram
    ) -> None:
        try:
            if is_class_label(label):
                await self._query(packet, host, payload, label)
            elif header.type in SHARD_TYPES and header.label == label:
                await self.steering.launch(packet, host, header)
            else:
                raise SteeringError(f"a packet of type {header.type.name} with label {label} is no object of ours")
        except (ControllerError, TopologyError) as error:
            self.gate.refuse(str(error), host, header)
            if header.type is PacketType.QUERY:
                self._refuse_query(host, header, error, datagram.source_port)

    async def _query(self, packet: PacketIn, host: HostPlan, payload: bytes, label: int) -> None:
        message = decode_message(payload)
        if not isinstance(message, Query):
            raise SteeringError(f"a query packet carries an Ask, not {type(message).__name__}")
        await self.queries.ask(packet, host, label, message)

    def _refuse_query(self, host: HostPlan, header: Header, error: Exception, port: int) -> None:
        reply = Header(
            type=PacketType.RESPONSE, flags=Flag.REPLY, object_id=header.object_id, transfer_id=header.transfer_id
        )
        self.kit.communication.answer(host, encode(reply, encode_message(refusal(error))), target_port=port)

    # --- other control centres

    async def ask(self, body: Ask) -> Reply:
        """Ask the DCC of a K-AS, ourselves included."""
        return await (self.serve(body) if body.kas in self.domain.kas else self._ask_border(body.kas, body))

    async def serve(self, body: Ask) -> Reply:
        """Answer a request of another DCC (or of ourselves); refusals are ``No`` with a reason."""
        try:
            if body.kas not in self.domain.kas:
                raise SteeringError(f"this is not the DCC of K-AS {body.kas}")
            return await self._serve(body)
        except (ControllerError, TopologyError) as error:
            return No(reason=str(error))
        except Exception as error:
            self.worker.report(error, f"serving {type(body).__name__}")
            return No(reason=f"{type(body).__name__} failed in the DCC of K-AS {body.kas}: {error}")

    async def _serve(self, body: Ask) -> Reply:
        match body:
            case AskOptions():
                await self.gathering.freshen(*self.places.wants(body.kas), STALE_S)
                return Options(
                    options=self.places.options(body.object_id, body.request, body.kas),
                    bookings=self.rivals.bookings(body.kas, body.object_id),
                    share_left=self.rivals.share_left(body.kas, body.object_id),
                )
            case AskFacilities():
                return Facilities(facilities=self.places.facilities(body.kas, body.role))
            case AskModels():
                return Models(models=self.queries.models(body.kas, body.task))
            case AskNextStop():
                return await self._next_stop(body)
            case Forward():
                return await self.terminals.forwarded(body)
            case Announce():
                return await self.steering.announced(body)
            case _:
                await self._do(body)
                return Done()

    async def _next_stop(self, ask: AskNextStop) -> Stop:
        known = ask.object_id in self.objects.announced
        self._check_owner(ask)
        return await (self.objects.next_stop(ask) if known else self.training.stops.next_stop(ask))

    def _check_owner(self, ask: AskNextStop) -> None:
        """An object's owner is who submitted or announced it, whoever else may have signed a mandate for it."""
        announced, job = self.objects.announced.get(ask.object_id), self.training.book.jobs.get(ask.object_id)
        name = announced.holder.name if announced else job.owner if job else ""
        owner = self.domain.hosts.get(name)
        if ask.owner and owner is not None and ask.owner != owner.address:
            raise SteeringError(f"owner: the object is not that of {ask.owner}")

    async def _do(self, body: Word) -> None:
        match body:
            case Withdraw():
                await self.steering.withdraw(body)
            case Spread():
                await self.queries.spread(body)
            case LinkState():
                self._hear_of_link(body)
            case Lost():
                await self._lost(body)
            case HandOver():
                await self.resteering.hand_over(body)
            case Release():
                await self.resteering.release(body)
            case Evidence():
                self.trusting.judge(body)
            case Interrupt():
                await self._interrupt(body)
            case Book():
                self.rivals.book(body)

    async def _interrupt(self, word: Interrupt) -> None:
        arrival = self.kit.location.arrival(word.object_id)
        if arrival is None or arrival.visit != word.visit:
            raise SteeringError(f"object {word.object_id} is not here on visit {word.visit}")
        await self.kit.processes.halt(arrival.node, word.object_id, word.reason)

    async def _lost(self, lost: Lost) -> None:
        if lost.to_holder:
            await self.resteering.resteer(lost)
        elif lost.leaving:
            self.resteering.leave(lost)
        elif lost.object_id in self.objects.announced:
            if (to_holder := self.objects.lost(lost)) is not None:
                await self.resteering.resteer(to_holder)
        else:
            await self.custody.lost(lost)
