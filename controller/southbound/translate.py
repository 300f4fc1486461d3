"""Neutral OpenFlow values -> os-ken messages (OpenFlow 1.3). The only file beside ``app`` that knows os-ken."""

from __future__ import annotations

from typing import Any

from controller.southbound.openflow import (
    ANY_TABLE,
    Action,
    Bucket,
    DecTtl,
    FlowMod,
    Found,
    GroupMod,
    MeterMod,
    Mod,
    Move,
    Output,
    PacketOut,
    SetField,
    ToGroup,
)

ALL_BITS = 0xFFFFFFFFFFFFFFFF


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
            actions = [_action(datapath, a) for a in mod.actions]
            return parser.OFPPacketOut(datapath, of.OFP_NO_BUFFER, mod.in_port, actions, mod.data)


def _action(datapath: Any, action: Action) -> Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
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
    instructions = []
    if mod.meter is not None:
        instructions.append(parser.OFPInstructionMeter(mod.meter, of.OFPIT_METER))
    if mod.actions:
        actions = [_action(datapath, a) for a in mod.actions]
        instructions.append(parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions))
    if mod.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(mod.goto))
    command = of.OFPFC_ADD
    if mod.delete:
        command = of.OFPFC_DELETE_STRICT if mod.match or mod.strict else of.OFPFC_DELETE
    return parser.OFPFlowMod(
        datapath,
        cookie=mod.cookie,
        cookie_mask=ALL_BITS if mod.delete and mod.cookie else 0,
        table_id=of.OFPTT_ALL if mod.table == ANY_TABLE else mod.table,
        command=command,
        priority=mod.priority,
        out_port=of.OFPP_ANY,
        out_group=of.OFPG_ANY,
        match=parser.OFPMatch(**mod.match),
        instructions=instructions,
    )


def _group(datapath: Any, mod: GroupMod) -> list[Any] | Any:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    buckets = [_bucket(datapath, b) for b in mod.buckets]
    gone = parser.OFPGroupMod(datapath, of.OFPGC_DELETE, of.OFPGT_SELECT, mod.group, [])
    if mod.delete:
        return gone
    if mod.modify:  # to delete a group would delete the flows that lead to it
        return parser.OFPGroupMod(datapath, of.OFPGC_MODIFY, of.OFPGT_SELECT, mod.group, buckets)
    return [gone, parser.OFPGroupMod(datapath, of.OFPGC_ADD, of.OFPGT_SELECT, mod.group, buckets)]


def _bucket(datapath: Any, bucket: Bucket) -> Any:
    of = datapath.ofproto
    actions = [_action(datapath, a) for a in bucket.actions]
    return datapath.ofproto_parser.OFPBucket(bucket.weight, of.OFPP_ANY, of.OFPG_ANY, actions)


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
    buckets = (Bucket(b.weight, tuple(_read_action(a) for a in b.actions)) for b in stats.buckets)
    return GroupMod(stats.group_id, tuple(buckets))


def _read_meter(stats: Any) -> MeterMod:
    (band,) = stats.bands
    return MeterMod(stats.meter_id, band.rate, band.burst_size)
