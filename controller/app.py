"""The os-ken shim: OpenFlow events become calls of the core, the core's decisions become messages. Nothing else.

The core is one asyncio loop, which reads and writes the switches' sessions (``session``); os-ken's handlers run in
threads of their own.  Their events cross by ``call_soon_threadsafe``, so the core never sees two at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from typing import Any, Protocol

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import controller as _options  # noqa: F401  registers the options that ``configure`` sets
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib import hub
from os_ken.ofproto import ofproto_v1_3

from controller.errors import SwitchTimeout
from controller.southbound.datapath import serve_in
from controller.southbound.fastpath import packet_out
from controller.southbound.openflow import Mod, PacketIn, PacketOut, PortCount
from controller.southbound.tls import Handshakes
from controller.southbound.translate import to_message


class Core(Protocol):
    """What the shim needs of the core; every method runs in the core's loop."""

    def switch_up(self, dpid: int, ports: set[int], meters: bool) -> None:
        """A switch has connected, with the ports that are up; ``meters``: it can meter packet-ins."""

    def switch_down(self, dpid: int) -> None:
        """A switch's session has ended."""

    def packet_in(self, packet: PacketIn) -> None:
        """A switch handed a packet up (OpenFlow 1.3, section 7.4.1)."""

    def port_changed(self, dpid: int, port: int, up: bool) -> None:
        """A port went up or down."""

    def port_counts(self, dpid: int, counts: list[PortCount]) -> None:
        """The counters of a switch's ports came, in bytes and packets since it started."""

    def switch_error(self, dpid: int, text: str) -> None:
        """A switch refused a message of ours; ``dpid`` 0: it has not said who it is."""


class Switches:
    """The southbound of the core: connected datapaths, and barriers waiting for their answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.datapaths: dict[int, Any] = {}
        self._waiting: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._xids = itertools.count(1)

    def send(self, dpid: int, mods: list[Mod]) -> None:
        """Send messages to a switch, in order; to one that is not connected, nothing."""
        datapath = self.datapaths.get(dpid)
        if datapath is None:
            return
        for mod in mods:
            ready = packet_out(next(self._xids) & 0xFFFF_FFFF, mod) if isinstance(mod, PacketOut) else None
            if ready is not None:
                datapath.send(ready)
                continue
            messages = to_message(datapath, mod)
            for message in messages if isinstance(messages, list) else [messages]:
                datapath.send_msg(message)

    async def barrier(self, dpid: int, timeout_s: float = 5.0) -> None:
        """Return when a switch has done all it was sent; ``SwitchTimeout`` when it does not say so in time."""
        datapath = self.datapaths.get(dpid)
        if datapath is None:
            raise SwitchTimeout(f"switch {dpid} is not connected")
        request = datapath.ofproto_parser.OFPBarrierRequest(datapath)
        key = dpid, datapath.set_xid(request)
        self._waiting[key] = done = self.loop.create_future()
        datapath.send_msg(request)
        try:
            await asyncio.wait_for(done, timeout_s)
        except TimeoutError as error:
            raise SwitchTimeout(f"switch {dpid} did not answer a barrier within {timeout_s:g} s") from error
        finally:
            self._waiting.pop(key, None)

    def barrier_answered(self, dpid: int, xid: int) -> None:
        """A barrier's answer came; one that nobody waits for any more is left aside."""
        done = self._waiting.get((dpid, xid))
        if done is not None and not done.done():
            done.set_result(None)

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
        self._call(self.core.port_changed, message.datapath.id, message.desc.port_no, up)

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _port_counts(self, event: Any) -> None:
        counts = [
            PortCount(s.port_no, s.tx_bytes, s.rx_bytes, s.tx_packets, s.rx_packets)
            for s in event.msg.body
            if s.port_no <= event.msg.datapath.ofproto.OFPP_MAX
        ]
        self._call(self.core.port_counts, event.msg.datapath.id, counts)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator,unused-ignore]
    def _barrier(self, event: Any) -> None:
        self._call(self.switches.barrier_answered, event.msg.datapath.id, event.msg.xid)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, (CONFIG_DISPATCHER, MAIN_DISPATCHER))  # type: ignore[untyped-decorator,unused-ignore]
    def _error(self, event: Any) -> None:
        message = event.msg
        text = f"OpenFlow error type {message.type} code {message.code}: {bytes(message.data)[:48].hex()}"
        self._call(self.core.switch_error, message.datapath.id or 0, text)


def start(
    core: Core, switches: Switches, port: int, host: str = "127.0.0.1", handshakes: Handshakes | None = None
) -> None:
    """Start os-ken without a manager process; it serves OpenFlow from threads of its own."""
    hub.Event = threading.Event  # os-ken's own never returns from wait(timeout) on native threads
    logging.getLogger("os_ken").setLevel(logging.CRITICAL)
    arguments = [f"--ofp-listen-host={host}", f"--ofp-tcp-listen-port={port}"]
    cfg.CONF(args=arguments, project="os_ken", default_config_files=[])
    serve_in(switches.loop, core.packet_in, core.switch_error, handshakes)
    manager = app_manager.AppManager.get_instance()
    manager.load_apps(["os_ken.controller.ofp_handler", "controller.app"])
    manager.instantiate_apps(core=core, switches=switches)
