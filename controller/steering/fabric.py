"""Switches and links as they come and go: prepared, routed around, told to the other K-AS of a border."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controller.border.messages import LinkState
from controller.domain import Domain
from controller.errors import BorderError
from controller.runtime.loop import Worker
from controller.services import Services
from controller.southbound.discovery import Discovery
from controller.southbound.openflow import DropCount, PacketIn, PortCount
from controller.steering.liveness import Liveness
from controller.steering.resteer import Resteering
from controller.tools.drops import Drops
from controller.tools.sensing import Sensing
from topologies.plan import KBG_ROLE


class Fabric:
    """Hears what the shim tells. ``packet_in`` takes what switches hand up, ``packet_refused`` what a port has no room
    for; ``on_ready`` is called once, when every switch has its rules, ``on_links`` whenever links came or went,
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
        self.packet_in = packet_in
        self.services, self.worker, self.discovery, self.sensing = services, worker, discovery, sensing
        self.resteering, self.liveness = resteering, liveness
        self.drops = Drops(services.domain, services.emit)
        self.on_ready: Callable[[], None] = lambda: None
        self.on_links: Callable[[], Awaitable[None]] = _nothing
        self.on_borders: Callable[[], None] = lambda: None
        self.packet_refused: Callable[[PacketIn], None] = lambda packet: None
        self._ready = False

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
        self.worker.spawn(self._prepare(dpid, ports, meters), f"prepare switch {dpid}")

    async def _prepare(self, dpid: int, ports: set[int], meters: bool) -> None:
        communication = self.services.communication
        await communication.prepare(self.domain.by_dpid[dpid].name, ports, meters=meters)
        if communication.complete and not self._ready:
            self._ready = True
            for kas in sorted(self.domain.kas):
                self.services.emit("dcc.ready", kas=kas)
            self.on_ready()
            self.discovery.probe()

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
        changed = border is not None and self._border_changed(self.domain.switches[name].kas, border.neighbour_kas)
        self.services.communication.reroute()  # what we tell others takes these ways, too
        if border is not None:
            self.on_borders()
            if changed:
                await self._tell_of_border(self.domain.switches[name].kas, border.neighbour_kas)
        self.liveness.look()
        await self.resteering.repair()
        await self.on_links()

    def _border_changed(self, kas: int, neighbour: int) -> bool:
        """One of the links to a neighbour came or went: they are joined as long as one is there. Tells whether that
        has changed.
        """
        up = self.domain.border(kas, neighbour) is not None
        if (frozenset((kas, neighbour)) not in self.domain.down_kas) == up:
            return False
        self._set_kas_link(kas, neighbour, up)
        self.services.emit("warning", text=f"link between K-AS {kas} and K-AS {neighbour} is {'up' if up else 'down'}")
        return True

    async def _tell_of_border(self, kas: int, neighbour: int) -> None:
        """Tell all other K-AS whether two are joined."""
        up = frozenset((kas, neighbour)) not in self.domain.down_kas

        async def tell(other: int) -> None:
            try:
                await self.services.must(LinkState(kas=other, a_kas=kas, b_kas=neighbour, up=up))
            except BorderError as error:
                self.services.emit("warning", text=str(error))

        await asyncio.gather(*(tell(k) for k in self.services.all_kas if k not in self.domain.kas))

    def hear_of_link(self, link: LinkState) -> None:
        """Another DCC tells of a border; both of its ends do, and it is news once."""
        known_up = frozenset((link.a_kas, link.b_kas)) not in self.domain.down_kas
        self._set_kas_link(link.a_kas, link.b_kas, link.up)
        if known_up != link.up:
            self.services.communication.reroute()
            self.worker.spawn(self.resteering.repair(), "repair of label paths")
            self.worker.spawn(self._links(), "leads to deployed models")

    async def _links(self) -> None:
        await self.on_links()

    def _set_kas_link(self, a: int, b: int, up: bool) -> None:
        (self.domain.down_kas.discard if up else self.domain.down_kas.add)(frozenset((a, b)))

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
