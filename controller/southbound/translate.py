"""Neutral OpenFlow values -> os-ken messages (OpenFlow 1.3). The only file beside ``app`` that knows os-ken."""

from __future__ import annotations

from typing import Any

from controller.southbound.openflow import (
    ANY_TABLE,
    Action,
    Bucket,
    DecTtl,
    FlowMod,
    GroupMod,
    Match,
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
        command = of.OFPFC_DELETE_STRICT if mod.match else of.OFPFC_DELETE
    return parser.OFPFlowMod(
        datapath,
        cookie=mod.cookie,
        cookie_mask=ALL_BITS if mod.delete and mod.cookie else 0,
        table_id=of.OFPTT_ALL if mod.table == ANY_TABLE else mod.table,
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


def _meter(datapath: Any, mod: MeterMod) -> list[Any]:
    parser, of = datapath.ofproto_parser, datapath.ofproto
    band = parser.OFPMeterBandDrop(rate=mod.rate_pps, burst_size=mod.burst)
    flags = of.OFPMF_PKTPS | of.OFPMF_BURST
    gone = parser.OFPMeterMod(datapath, of.OFPMC_DELETE, flags, mod.meter, [])
    return [gone, parser.OFPMeterMod(datapath, of.OFPMC_ADD, flags, mod.meter, [band])]
