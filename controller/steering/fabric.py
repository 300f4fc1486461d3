"""Switches and links as they come and go: prepared, routed around, told to the other K-AS of a border."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from controller.border.messages import LinkState
from controller.domain import Domain
from controller.runtime.loop import Worker
from controller.services import Services
from controller.southbound.discovery import Discovery
from controller.southbound.openflow import DropCount, FlowMod, PacketIn, PortCount
from controller.southbound.reconcile import Change
from controller.steering.borders import Borders
from controller.steering.liveness import Liveness
from controller.steering.resteer import Resteering
from controller.tools.drops import Drops
from controller.tools.sensing import Sensing
from topologies.plan import KBG_ROLE

START_S = 2.0  # what switches have to connect in, before a control centre that was started again goes on without some
MOST_EARLY = 4096


class Fabric:
    """Hears what the shim tells. ``packet_in`` takes what switches hand up, ``packet_refused`` what a port has no room
    for; ``on_ready`` is called once, when every switch has its rules, ``on_switch`` with the name of each that has,
    ``on_links`` whenever links came or went,
    ``on_borders`` when links to other K-AS did.
    """

    def __init__(
        self,
        services: Services,
        worker: Worker,
        packet_in: Callable[[PacketIn], None],
        discovery: Discovery,
        sensing: Sensing,
        resteering: Resteering,
        liveness: Liveness,
    ) -> None:
        self._take = packet_in
        self.services, self.worker, self.discovery, self.sensing = services, worker, discovery, sensing
        self.resteering, self.liveness = resteering, liveness
        self.drops = Drops(services.domain, services.emit)
        self.on_ready: Callable[[], None] = lambda: None
        self.on_links: Callable[[], Awaitable[None]] = _nothing
        self.on_borders: Callable[[], None] = lambda: None
        self.packet_refused: Callable[[PacketIn], None] = lambda packet: None
        self.on_switch: Callable[[str], None] = lambda name: None
        self._ready = False
        self._here: set[str] = set()
        self._early: list[PacketIn] = []
        self._too_much: list[tuple[str, Change]] = []
        self.adopted = {"kept": 0, "added": 0, "deleted": 0}  # flows
        self._all_here, self._prepared, self.resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.borders = Borders(services)
        if not services.store.again:
            self.resumed.set()

    @property
    def domain(self) -> Domain:
        """The declared network, with what is up and down in it."""
        return self.services.domain

    def switch_up(self, dpid: int, ports: set[int], meters: bool) -> None:
        """A switch has connected."""
        if dpid not in self.domain.by_dpid:
            self.services.emit(
                "warning", text=f"switch {dpid} connected, but is not in the plan of this DCC: left alone"
            )
            return
        name = self.domain.by_dpid[dpid].name
        before, again = self._down_at(name), name in self._here
        self.services.communication.note_ports(name, ports, all_there=self.services.store.again)
        self._here.add(name)
        if self._here == set(self.domain.switches):
            self._all_here.set()
        self.worker.spawn(self._prepare(name, meters), f"prepare switch {name}")
        for port in sorted(before ^ self._down_at(name)) if again else ():  # while it was away
            self.worker.spawn(self._links_changed(name, port, port in before), f"port {port} of {name}")

    def _down_at(self, name: str) -> set[int]:
        return {port for at, port in self.domain.down if at == name}

    async def _prepare(self, name: str, meters: bool) -> None:
        communication = self.services.communication
        if not self.resumed.is_set():
            await self._wait(self._all_here)  # which links are up is known before any route is changed
        change = await communication.prepare(name, meters=meters)
        self._adopted(change)
        if self.resumed.is_set():
            communication.clear(name, change)
        else:
            self._too_much.append((name, change))
        self.on_switch(name)
        if communication.complete and not self._ready:
            self._ready = True
            self._prepared.set()
            for kas in sorted(self.domain.kas):
                self.services.emit("dcc.ready", kas=kas)
            self.on_ready()
            self.discovery.probe()

    def _adopted(self, change: Change) -> None:
        self.adopted["kept"] += change.kept
        self.adopted["added"] += sum(isinstance(m, FlowMod) for m in change.first)
        self.adopted["deleted"] += sum(isinstance(m, FlowMod) for m in change.last)

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), START_S)

    async def resume(self) -> None:
        """Go on where an earlier life died: adopt what switches hold, then lay what it had begun to lay, and only then
        delete what no object has. What comes in meanwhile waits, for so long as switches may take to connect.
        """
        await self._wait(self._all_here)
        await self._wait(self._prepared)
        await self.services.communication.resume()
        too_much, self._too_much = self._too_much, []
        for name, change in too_much:
            self.services.communication.clear(name, change)
        self.resumed.set()
        early, self._early = self._early, []
        for packet in early:
            self._take(packet)
        for pair in self.borders.look_at_all():
            self.worker.spawn(self.borders.tell(*pair), f"border to K-AS {pair[1]}")
        self.services.communication.reroute()
        self.on_borders()
        await self.resteering.repair()
        await self.on_links()

    def packet_in(self, packet: PacketIn) -> None:
        """A switch handed a packet up."""
        if self.resumed.is_set():
            self._take(packet)
        elif len(self._early) < MOST_EARLY:
            self._early.append(packet)

    def switch_down(self, dpid: int) -> None:
        """A switch's session has ended; it goes on forwarding by the rules it has."""
        if dpid in self.domain.by_dpid:
            name = self.domain.by_dpid[dpid].name
            self.services.communication.lost(name)
            self.services.emit("warning", text=f"switch {name} has disconnected")

    def switch_error(self, dpid: int, text: str) -> None:
        """A switch refused something."""
        switch = self.domain.by_dpid.get(dpid)
        self.services.emit("error", text=f"switch {switch.name if switch else dpid}: {text}")

    def port_changed(self, dpid: int, port: int, up: bool) -> None:
        """A port went down or came up: route around it, mend label paths, tell the other K-AS of a border."""
        switch = self.domain.by_dpid.get(dpid)
        if switch is None or ((switch.name, port) not in self.domain.down) == up:
            return
        (self.domain.down.discard if up else self.domain.down.add)((switch.name, port))
        self.worker.spawn(self._links_changed(switch.name, port, up), f"port {port} of {switch.name}")

    async def _links_changed(self, name: str, port: int, up: bool) -> None:
        border, host = self.domain.borders.get((name, port)), self.domain.host_at.get((name, port))
        if host is not None and host.role != KBG_ROLE and not up:
            self.liveness.dead(host.name, "is cut off")
        pair = (self.domain.switches[name].kas, border.neighbour_kas) if border is not None else None
        changed = pair is not None and self.borders.look(*pair)
        self.services.communication.reroute()  # what we tell others takes these ways, too
        if pair is not None:
            self.on_borders()
            if changed:
                await self.borders.tell(*pair)
        self.liveness.look()
        await self.resteering.repair()
        await self.on_links()

    def hear_of_link(self, link: LinkState) -> None:
        """Another DCC tells of a border; both of its ends do, and it is news once."""
        if self.borders.hear(link):
            self.services.communication.reroute()
            self.worker.spawn(self.resteering.repair(), "repair of label paths")
            self.worker.spawn(self._links(), "leads to deployed models")

    async def _links(self) -> None:
        await self.on_links()

    def port_counts(self, dpid: int, counts: list[PortCount]) -> None:
        """A switch's counters came."""
        if dpid in self.domain.by_dpid:
            self.sensing.counted(dpid, counts, self.services.clock(), self.discovery.peers)

    def drop_counts(self, dpid: int, counts: list[DropCount]) -> None:
        """What a switch has dropped came."""
        self.drops.counted(dpid, counts)

    def poll_drops(self) -> None:
        """Ask every connected switch what it has dropped (periodic)."""
        for name in self.services.communication.connected:
            self.services.communication.south.ask_drop_counts(self.domain.switches[name].dpid)

    def poll(self) -> None:
        """Ask every connected switch for its port counters (periodic)."""
        for name in self.services.communication.connected:
            self.services.communication.south.ask_port_counts(self.domain.switches[name].dpid)


async def _nothing() -> None:
    """Nobody wants to know."""
