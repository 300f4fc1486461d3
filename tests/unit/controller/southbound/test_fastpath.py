"""Packet-ins and packet-outs in bytes: the same as os-ken's, value for value and byte for byte."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller.domain import Domain
from controller.southbound import guard, pipeline
from controller.southbound.fastpath import packet_out, read_packet_in
from controller.southbound.openflow import (
    PORT_CONTROLLER,
    PORT_TABLE,
    Bucket,
    FlowMod,
    GroupMod,
    Mod,
    Output,
    PacketIn,
    PacketOut,
    SetField,
)
from controller.southbound.translate import to_bytes, to_message
from tests.fake_fabric import small_plan

DATAPATH = SimpleNamespace(id=7, ofproto=of, ofproto_parser=parser)


def packet_in(data: bytes, **match: int) -> bytes:
    fields = bytearray()
    parser.OFPMatch(**match).serialize(fields, 0)
    body = struct.pack("!IHBBQ", of.OFP_NO_BUFFER, len(data), 0, 3, 9) + bytes(fields) + b"\0\0" + data
    return struct.pack("!BBHI", 4, of.OFPT_PACKET_IN, 8 + len(body), 1) + body


@pytest.mark.parametrize("more", [{}, {"eth_type": 0x800}, {"metadata": 5}])
def test_a_packet_in_says_what_os_ken_reads_of_it(more: dict[str, int]) -> None:
    message = packet_in(b"frame" * 20, in_port=12, **more)
    theirs = parser.msg_parser(DATAPATH, 4, of.OFPT_PACKET_IN, len(message), 1, message)
    ours = read_packet_in(7, message)
    assert ours == PacketIn(7, theirs.match["in_port"], theirs.table_id, theirs.data)


def test_what_is_not_as_expected_is_left_to_os_ken() -> None:
    whole = packet_in(b"frame", in_port=12)
    assert read_packet_in(7, packet_in(b"frame", eth_type=0x800)) is None, "no port in its match"
    for cut in range(len(whole)):
        assert read_packet_in(7, whole[:cut]) is None


@pytest.mark.parametrize("in_port", [PORT_CONTROLLER, 3])
@pytest.mark.parametrize("port", [5, PORT_TABLE])
def test_a_packet_out_is_os_ken_s_byte_for_byte(in_port: int, port: int) -> None:
    out = PacketOut((Output(port),), b"frame" * 30, in_port=in_port)
    theirs = to_message(DATAPATH, out)
    theirs.set_xid(77)
    theirs.serialize()
    assert packet_out(77, out) == bytes(theirs.buf)


def test_other_packet_outs_are_left_to_os_ken() -> None:
    assert packet_out(1, PacketOut((SetField("eth_dst", "02:00:00:00:00:01"), Output(1)), b"x")) is None


def test_every_rule_of_a_network_is_os_ken_s_byte_for_byte() -> None:
    plan = small_plan()
    domain = Domain(plan.domain())
    routes = pipeline.route_flows(domain)
    label = FlowMod(pipeline.LABEL, pipeline.label_match(5, 3), 50, (Output(2),), cookie=pipeline.label_cookie(5))
    mods: list[Mod] = [pipeline.label_delete(5), label]
    for switch in plan.switches:
        mods += [*pipeline.base_mods(domain, switch, meters=True), *routes[switch.name]]
        mods += guard.switch_mods(domain, switch, meters=True, own_source=True)
    flows = [mod for mod in mods if isinstance(mod, FlowMod)]
    assert len(flows) > 500
    for flow in [*flows, *(replace(f, delete=True) for f in flows)]:
        theirs = to_message(DATAPATH, flow)
        theirs.set_xid(9)
        theirs.serialize()
        assert to_bytes(9, flow) == bytes(theirs.buf), flow


def test_a_failover_group_is_set_whether_it_is_there_or_not() -> None:
    bucket = Bucket(0, (Output(4),), watch_port=4)
    message = to_message(DATAPATH, GroupMod(1 << 30, (bucket,), failover=True))
    message.set_xid(1)
    message.serialize()
    command, kind, group = struct.unpack_from("!HBxI", message.buf, 8)
    assert (command, kind, group) == (0x8000, of.OFPGT_FF, 1 << 30)
    assert struct.unpack_from("!HHI", message.buf, 16)[2] == 4, "the port that is watched"
