"""Neutral OpenFlow values -> os-ken messages (OpenFlow 1.3). The only file beside ``app`` that knows os-ken."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as of13
from os_ken.ofproto import ofproto_v1_3_parser as parser13

from controller.southbound import fastpath
from controller.southbound.openflow import (
    Action,
    Bucket,
    DecTtl,
    FlowMod,
    Found,
    GroupMod,
    Match,
    MeterMod,
    Mod,
    Move,
    Output,
    PacketOut,
    SetField,
    ToGroup,
    Value,
)

ALL_BITS = 0xFFFFFFFFFFFFFFFF
KEPT = 1 << 16  # matches, and actions, whose bytes are kept: some 20 MB
ADD_OR_MODIFY = 0x8000  # Open vSwitch's own command: a group of this number, whether there is one or not


def to_message(datapath: Any, mod: Mod) -> Any:
    """Return the os-ken message of a neutral value, for a connected datapath."""
    match mod:
        case FlowMod():
            return _flow(datapath, mod)
        case GroupMod():
            return _group(datapath, mod)
        case MeterMod():
            return _meter(datapath, mod)
        case PacketOut():
            parser, of = datapath.ofproto_parser, datapath.ofproto
            actions = [_action(parser, of, a) for a in mod.actions]
            return parser.OFPPacketOut(datapath, of.OFP_NO_BUFFER, mod.in_port, actions, mod.data)


def to_bytes(xid: int, mod: Mod) -> bytes | None:
    """Return the message of a flow, or of a packet-out of one output, without os-ken's objects; None for others.

    The rules of a network are made of few matches and few actions: what os-ken needs 50 us for is kept.
    """
    if isinstance(mod, PacketOut):
        return fastpath.packet_out(xid, mod)
    if not isinstance(mod, FlowMod):
        return None
    done = _instruction_bytes(mod.meter, mod.actions, mod.goto)
    return fastpath.flow_mod(xid, mod, _match_bytes(tuple(mod.match.items())), done)


@lru_cache(maxsize=KEPT)
def _match_bytes(match: tuple[tuple[str, Value], ...]) -> bytes:
    room = bytearray()
    _match(parser13, dict(match)).serialize(room, 0)
    return bytes(room)


@lru_cache(maxsize=KEPT)
def _instruction_bytes(meter: int | None, actions: tuple[Action, ...], goto: int | None) -> bytes:
    room = bytearray()
    for instruction in _instructions(parser13, of13, meter, actions, goto):
        instruction.serialize(room, len(room))
    return bytes(room)


def _instructions(parser: Any, of: Any, meter: int | None, actions: tuple[Action, ...], goto: int | None) -> list[Any]:
    found = [] if meter is None else [parser.OFPInstructionMeter(meter, of.OFPIT_METER)]
    if actions:
        made = [_action(parser, of, a) for a in actions]
        found.append(parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, made))
    return found if goto is None else [*found, parser.OFPInstructionGotoTable(goto)]


def _action(parser: Any, of: Any, action: Action) -> Any:
    match action:
        case SetField(name, value):
            return parser.OFPActionSetField(**{name: value})
        case Move(source, target, bits):
            return parser.NXActionRegMove(src_field=source, dst_field=target, n_bits=bits)
        case DecTtl():
            return parser.OFPActionDecNwTtl()
        case Output(port):
            return parser.OFPActionOutput(port, of.OFPCML_NO_BUFFER)
        case ToGroup(group):
            return parser.OFPActionGroup(group)


def _flow(datapath: Any, mod: FlowMod) -> Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    instructions = _instructions(parser, of, mod.meter, mod.actions, mod.goto)
    command = of.OFPFC_ADD
    if mod.delete:
        command = of.OFPFC_DELETE_STRICT if mod.match or mod.strict else of.OFPFC_DELETE
    return parser.OFPFlowMod(
        datapath,
        cookie=mod.cookie,
        cookie_mask=ALL_BITS if mod.delete and mod.cookie else 0,
        table_id=mod.table,
        command=command,
        priority=mod.priority,
        out_port=of.OFPP_ANY,
        out_group=of.OFPG_ANY,
        match=_match(parser, mod.match),
        instructions=instructions,
    )


def _match(parser: Any, match: Match) -> Any:
    """A Nicira field goes last: os-ken sorts it before the EtherType, without which a switch refuses it."""
    found = parser.OFPMatch(**match)
    if "nw_ttl" in match:
        found = parser.OFPMatch(_ordered_fields=sorted(found._fields2, key=lambda named: named[0] == "nw_ttl"))
    return found


def _group(datapath: Any, mod: GroupMod) -> list[Any] | Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    buckets = [_bucket(datapath, b) for b in mod.buckets]
    if mod.failover:
        return parser.OFPGroupMod(datapath, ADD_OR_MODIFY, of.OFPGT_FF, mod.group, buckets)
    gone = parser.OFPGroupMod(datapath, of.OFPGC_DELETE, of.OFPGT_SELECT, mod.group, [])
    if mod.delete:
        return gone
    if mod.modify:  # to delete a group would delete the flows that lead to it
        return parser.OFPGroupMod(datapath, of.OFPGC_MODIFY, of.OFPGT_SELECT, mod.group, buckets)
    return [gone, parser.OFPGroupMod(datapath, of.OFPGC_ADD, of.OFPGT_SELECT, mod.group, buckets)]


def _bucket(datapath: Any, bucket: Bucket) -> Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    actions = [_action(parser, of, a) for a in bucket.actions]
    watched = of.OFPP_ANY if bucket.watch_port is None else bucket.watch_port
    return parser.OFPBucket(bucket.weight, watched, of.OFPG_ANY, actions)


def _meter(datapath: Any, mod: MeterMod) -> list[Any] | Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    band = parser.OFPMeterBandDrop(rate=mod.rate_pps, burst_size=mod.burst)
    flags = of.OFPMF_PKTPS | of.OFPMF_BURST
    if mod.modify:
        return parser.OFPMeterMod(datapath, of.OFPMC_MODIFY, flags, mod.meter, [band])
    gone = parser.OFPMeterMod(datapath, of.OFPMC_DELETE, flags, mod.meter, [])
    return [gone, parser.OFPMeterMod(datapath, of.OFPMC_ADD, flags, mod.meter, [band])]


# --- and back


def to_found(datapath: Any, flows: list[Any], groups: list[Any], meters: list[Any]) -> Found:
    """Return what a switch told of itself (bodies of multipart replies) as the values that would have made it."""
    found = Found(groups=[_read_group(g) for g in groups], meters=[_read_meter(m) for m in meters])
    for stats in flows:
        try:
            found.flows.append(_read_flow(datapath, stats))
        except (KeyError, ValueError, AttributeError):
            found.unread += 1
    return found


def _read_flow(datapath: Any, stats: Any) -> FlowMod:
    parser = datapath.ofproto_parser
    actions: tuple[Action, ...] = ()
    goto = meter = None
    for instruction in stats.instructions:
        match type(instruction):
            case parser.OFPInstructionGotoTable:
                goto = instruction.table_id
            case parser.OFPInstructionMeter:
                meter = instruction.meter_id
            case parser.OFPInstructionActions:
                actions = tuple(_read_action(a) for a in instruction.actions)
            case _:
                raise ValueError(instruction)
    return FlowMod(stats.table_id, dict(stats.match.items()), stats.priority, actions, goto, meter, stats.cookie)


def _read_action(action: Any) -> Action:
    match type(action).__name__:
        case "OFPActionSetField":
            return SetField(action.key, action.value)
        case "OFPActionDecNwTtl":
            return DecTtl()
        case "OFPActionGroup":
            return ToGroup(action.group_id)
        case "OFPActionOutput":
            return Output(action.port)
        case "NXActionRegMove":
            return Move(action.src_field, action.dst_field, action.n_bits)
        case name:
            raise ValueError(name)


def _read_group(stats: Any) -> GroupMod:
    failover = stats.type == of13.OFPGT_FF
    buckets = [
        Bucket(b.weight, tuple(_read_action(a) for a in b.actions), b.watch_port if failover else None)
        for b in stats.buckets
    ]
    return GroupMod(stats.group_id, tuple(buckets), failover=failover)


def _read_meter(stats: Any) -> MeterMod:
    (band,) = stats.bands
    return MeterMod(stats.meter_id, band.rate, band.burst_size)
