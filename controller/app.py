"""The os-ken shim: OpenFlow events become calls of the core, the core's decisions become messages. Nothing else.

The core is one asyncio loop, which reads and writes the switches' sessions (``session``); os-ken's handlers run in
threads of their own.  Their events cross by ``call_soon_threadsafe``, so the core never sees two at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import controller as _options  # noqa: F401  registers the options that ``configure`` sets
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib import hub
from os_ken.ofproto import ofproto_v1_3

from controller.errors import SwitchTimeout
from controller.southbound import guard
from controller.southbound.fair_queue import FairQueue
from controller.southbound.openflow import DropCount, Found, Mod, PacketIn, PortCount
from controller.southbound.session.datapath import serve_in
from controller.southbound.session.spares import Spare
from controller.southbound.session.tls import Handshakes
from controller.southbound.translate import to_bytes, to_found, to_message

HOST = "127.0.0.1"
HELD = [ofp_event.EventOFPFlowStatsReply, ofp_event.EventOFPGroupDescStatsReply]  # what switches say that they hold
HELD += [ofp_event.EventOFPMeterConfigStatsReply]


class Core(Protocol):
    """What the shim needs of the core; every method runs in the core's loop."""

    def switch_up(self, dpid: int, ports: set[int], meters: bool) -> None:
        """A switch has connected, with the ports that are up; ``meters``: it can meter packet-ins."""

    def switch_down(self, dpid: int) -> None:
        """A switch's session has ended."""

    def packet_in(self, packet: PacketIn) -> None:
        """A switch handed a packet up (OpenFlow 1.3, section 7.4.1)."""

    def packet_refused(self, packet: PacketIn) -> None:
        """A packet was handed up by a port of which too many wait already."""

    def port_changed(self, dpid: int, port: int, up: bool) -> None:
        """A port went up or down."""

    def port_counts(self, dpid: int, counts: list[PortCount]) -> None:
        """The counters of a switch's ports came, in bytes and packets since it started."""

    def drop_counts(self, dpid: int, counts: list[DropCount]) -> None:
        """What rules and meters of a switch have dropped since they were made."""

    def switch_error(self, dpid: int, text: str) -> None:
        """A switch refused a message of ours; ``dpid`` 0: it has not said who it is."""


class Switches:
    """The southbound of the core: connected datapaths, and requests waiting for their answer.

    ``before`` is called before anything is sent: what it rests on is to be written down by then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, before: Callable[[], None] = lambda: None) -> None:
        self.loop, self.before = loop, before
        self.datapaths: dict[int, Any] = {}
        self._waiting: dict[tuple[int, int], asyncio.Future[list[Any]]] = {}
        self._parts: dict[tuple[int, int], list[Any]] = {}
        self._xids = itertools.count(1)
        self._dropped: dict[int, tuple[int, int]] = {}

    def send(self, dpid: int, mods: list[Mod]) -> None:
        """Send messages to a switch, in order; to one that is not connected, nothing."""
        datapath = self.datapaths.get(dpid)
        if datapath is None:
            return
        self.before()
        ready = bytearray()
        for mod in mods:
            known = to_bytes(next(self._xids) & 0xFFFF_FFFF, mod)
            if known is not None:
                ready += known
                continue
            messages = to_message(datapath, mod)
            for message in messages if isinstance(messages, list) else [messages]:
                datapath.set_xid(message)
                message.serialize()
                ready += message.buf
        datapath.send(bytes(ready))  # one write for all

    async def barrier(self, dpid: int, timeout_s: float = 5.0) -> None:
        """Return when a switch has done all it was sent; ``SwitchTimeout`` when it does not say so in time."""
        datapath = self.datapaths.get(dpid)
        if datapath is None:
            raise SwitchTimeout(f"switch {dpid} is not connected")
        await self._ask(datapath, datapath.ofproto_parser.OFPBarrierRequest(datapath), "a barrier", timeout_s)

    async def found(self, dpid: int, *, meters: bool, timeout_s: float = 5.0) -> Found:
        """Return what a switch holds, groups and meters before the flows that lead to them; ``SwitchTimeout``."""
        datapath = self.datapaths.get(dpid)
        if datapath is None:
            raise SwitchTimeout(f"switch {dpid} is not connected")
        parser, of = datapath.ofproto_parser, datapath.ofproto
        requests = [parser.OFPGroupDescStatsRequest(datapath, 0), parser.OFPFlowStatsRequest(datapath)]
        requests += [parser.OFPMeterConfigStatsRequest(datapath, 0, of.OFPM_ALL)] if meters else []
        asked = [self._ask(datapath, r, "what it holds", timeout_s) for r in requests]
        groups, flows, *metered = await asyncio.gather(*asked)
        return to_found(datapath, flows, groups, metered[0] if metered else [])

    async def _ask(self, datapath: Any, request: Any, what: str, timeout_s: float) -> list[Any]:
        key = datapath.id, datapath.set_xid(request)
        self._waiting[key] = done = self.loop.create_future()
        datapath.send_msg(request)
        try:
            return await asyncio.wait_for(done, timeout_s)
        except TimeoutError as error:
            raise SwitchTimeout(f"switch {datapath.id} did not answer {what} within {timeout_s:g} s") from error
        finally:
            self._waiting.pop(key, None)
            self._parts.pop(key, None)

    def answered(self, dpid: int, xid: int, part: list[Any], more: bool = False) -> None:
        """An answer came, or a part of it; one that nobody waits for any more is left aside."""
        done = self._waiting.get((dpid, xid))
        if done is None or done.done():
            return
        whole = self._parts.setdefault((dpid, xid), [])
        whole += part
        if not more:
            done.set_result(whole)

    def lost(self, dpid: int) -> None:
        """The session is gone: no barrier of it will be answered."""
        del self.datapaths[dpid]
        for (waited_for, _), done in self._waiting.items():
            if waited_for == dpid and not done.done():
                done.set_exception(SwitchTimeout(f"switch {dpid} has disconnected"))

    def ask_port_counts(self, dpid: int) -> None:
        """Ask a switch for the counters of all its ports; they come in as ``port_counts``."""
        datapath = self.datapaths.get(dpid)
        if datapath is not None:
            datapath.send_msg(datapath.ofproto_parser.OFPPortStatsRequest(datapath, 0, datapath.ofproto.OFPP_ANY))

    def ask_drop_counts(self, dpid: int) -> None:
        """Ask how much was dropped in all, and by each meter; where that has grown, each rule is asked for its part."""
        datapath = self.datapaths.get(dpid)
        if datapath is not None:
            parser, of = datapath.ofproto_parser, datapath.ofproto
            datapath.send_msg(parser.OFPAggregateStatsRequest(datapath, 0, *_dropping(datapath)))
            if getattr(datapath, "can_meter", False):
                datapath.send_msg(parser.OFPMeterStatsRequest(datapath, 0, of.OFPM_ALL))

    def dropped_in_all(self, datapath: Any, rules: int, packets: int) -> None:
        """The sum came: if it, or the number of rules, is another than before, ask for each."""
        if self._dropped.get(datapath.id) != (rules, packets):
            self._dropped[datapath.id] = rules, packets
            datapath.send_msg(datapath.ofproto_parser.OFPFlowStatsRequest(datapath, 0, *_dropping(datapath)))


def _dropping(datapath: Any) -> tuple[Any, ...]:
    """Return what chooses, in a request for statistics, the rules that drop frames."""
    of = datapath.ofproto
    every = of.OFPTT_ALL, of.OFPP_ANY, of.OFPG_ANY
    return (*every, guard.DROP_COOKIE, guard.DROP_COOKIE, datapath.ofproto_parser.OFPMatch())


class Shim(app_manager.OSKenApp):  # type: ignore[misc,unused-ignore]  # os-ken has no types
    """Receives every OpenFlow event that matters to us and passes it on."""

    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    def __init__(self, *args: Any, core: Core, switches: Switches, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.core, self.switches = core, switches

    def _call(self, method: Any, *args: Any) -> None:
        if not self.switches.loop.is_closed():
            self.switches.loop.call_soon_threadsafe(method, *args)

    @set_ev_cls(ofp_event.EventOFPStateChange, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _greeted(self, event: Any) -> None:
        """Whole packets in packet-ins (nothing is ever buffered in a switch); then what it can do, and its ports."""
        datapath = event.datapath
        parser, of = datapath.ofproto_parser, datapath.ofproto
        datapath.send_msg(parser.OFPSetConfig(datapath, of.OFPC_FRAG_NORMAL, of.OFPCML_NO_BUFFER))
        datapath.send_msg(parser.OFPMeterFeaturesStatsRequest(datapath, 0))
        datapath.send_msg(parser.OFPPortDescStatsRequest(datapath, 0))

    @set_ev_cls(ofp_event.EventOFPMeterFeaturesStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _meters(self, event: Any) -> None:
        event.msg.datapath.can_meter = any(f.max_meter > 0 for f in event.msg.body)

    @set_ev_cls(ofp_event.EventOFPPortDescStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _connected(self, event: Any) -> None:
        datapath = event.msg.datapath
        ports = {p.port_no for p in event.msg.body if not p.state & datapath.ofproto.OFPPS_LINK_DOWN}
        self._call(self._up, datapath, ports)

    def _up(self, datapath: Any, ports: set[int]) -> None:
        self.switches.datapaths[datapath.id] = datapath
        self.core.switch_up(datapath.id, ports, getattr(datapath, "can_meter", False))

    @set_ev_cls(ofp_event.EventOFPStateChange, DEAD_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _disconnected(self, event: Any) -> None:
        self._call(self._gone, event.datapath)

    def _gone(self, datapath: Any) -> None:
        dpid = datapath.id
        if dpid is not None and self.switches.datapaths.get(dpid) is datapath:
            self.switches.lost(dpid)
            self.core.switch_down(dpid)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _packet_in(self, event: Any) -> None:
        message = event.msg
        packet = PacketIn(message.datapath.id, message.match["in_port"], message.table_id, bytes(message.data))
        self._call(self.core.packet_in, packet)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _port_status(self, event: Any) -> None:
        message, of = event.msg, event.msg.datapath.ofproto
        up = message.reason != of.OFPPR_DELETE and not message.desc.state & of.OFPPS_LINK_DOWN
        self._call(self._port, message.datapath, message.desc.port_no, up)

    def _port(self, datapath: Any, port: int, up: bool) -> None:
        """Pass on what a switch's present session tells: the last words of the one before come late, and a new one's
        first are in the ports that it connects with.
        """
        dpid = datapath.id
        if self.switches.datapaths.get(dpid) is datapath:
            self.core.port_changed(dpid, port, up)

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _port_counts(self, event: Any) -> None:
        counts = [
            PortCount(s.port_no, s.tx_bytes, s.rx_bytes, s.tx_packets, s.rx_packets)
            for s in event.msg.body
            if s.port_no <= event.msg.datapath.ofproto.OFPP_MAX
        ]
        self._call(self.core.port_counts, event.msg.datapath.id, counts)

    @set_ev_cls(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _dropped_in_all(self, event: Any) -> None:
        found = event.msg.body
        self._call(self.switches.dropped_in_all, event.msg.datapath, found.flow_count, found.packet_count)

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _dropped_by_rules(self, event: Any) -> None:
        dropping = [s for s in event.msg.body if s.cookie & guard.DROP_COOKIE and s.packet_count]
        counts = [DropCount(s.cookie, s.table_id, s.priority, s.packet_count) for s in dropping]
        self._call(self.core.drop_counts, event.msg.datapath.id, counts)

    @set_ev_cls(ofp_event.EventOFPMeterStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _dropped_by_meters(self, event: Any) -> None:
        counts = [
            DropCount(guard.drop_cookie("meter", s.meter_id), None, 0, sum(b.packet_band_count for b in s.band_stats))
            for s in event.msg.body
        ]
        self._call(self.core.drop_counts, event.msg.datapath.id, [c for c in counts if c.packets])

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _barrier(self, event: Any) -> None:
        self._call(self.switches.answered, event.msg.datapath.id, event.msg.xid, [])

    @set_ev_cls(HELD, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _told(self, event: Any) -> None:
        message = event.msg
        more = bool(message.flags & message.datapath.ofproto.OFPMPF_REPLY_MORE)
        self._call(self.switches.answered, message.datapath.id, message.xid, list(message.body), more)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])  # type: ignore[untyped-decorator,unused-ignore]
    def _error(self, event: Any) -> None:
        message = event.msg
        text = f"OpenFlow error type {message.type} code {message.code}: {bytes(message.data)[:48].hex()}"
        self._call(self.core.switch_error, message.datapath.id or 0, text)


def start(
    core: Core,
    switches: Switches,
    port: int,
    address: str = HOST,
    spares: Sequence[Spare] = (),
    handshakes: Handshakes | None = None,
) -> None:
    """Start os-ken without a manager process; it serves OpenFlow from threads of its own.

    ``spares``: sessions that it takes over; ``handshakes``: each new one begins with one of TLS.
    """
    hub.Event = threading.Event  # os-ken's own never returns from wait(timeout) on native threads
    logging.getLogger("os_ken").setLevel(logging.CRITICAL)
    arguments = [f"--ofp-listen-host={address}", f"--ofp-tcp-listen-port={port}"]
    cfg.CONF(args=arguments, project="os_ken", default_config_files=[])
    queue = FairQueue(switches.loop, core.packet_in, core.packet_refused)
    take_over = serve_in(switches.loop, queue.put, core.switch_error, queue.serve, handshakes)
    manager = app_manager.AppManager.get_instance()
    manager.load_apps(["os_ken.controller.ofp_handler", "controller.app"])
    manager.instantiate_apps(core=core, switches=switches)
    for spare in spares:
        hub.spawn(take_over, spare)
