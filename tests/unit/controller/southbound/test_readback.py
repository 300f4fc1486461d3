"""What a switch tells of itself reads as the very values that made it: through os-ken's bytes, both ways."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller.domain import Domain
from controller.southbound import failover, guard, pipeline
from controller.southbound.failover import Ways
from controller.southbound.openflow import Action, Bucket, FlowMod, GroupMod, MeterMod, Mod, Move, Output, SetField
from controller.southbound.reconcile import reconcile
from controller.southbound.translate import to_bytes, to_found, to_message
from tests.fake_fabric import small_plan

DATAPATH = SimpleNamespace(ofproto=of, ofproto_parser=parser)
DOMAIN = Domain(small_plan().domain(1))
FLOW_MOD_HEAD = 48  # bytes before its match


def flow_stats(mod: FlowMod) -> Any:
    """Return a flow as os-ken reads it from a switch that was sent it."""
    sent = to_bytes(1, mod)
    assert sent is not None
    match = parser.OFPMatch.parser(sent, FLOW_MOD_HEAD)
    at, instructions = FLOW_MOD_HEAD + -(-match.length // 8) * 8, []
    while at < len(sent):
        instructions.append(parser.OFPInstruction.parser(sent, at))
        at += instructions[-1].len
    return SimpleNamespace(
        table_id=mod.table, priority=mod.priority, cookie=mod.cookie, match=match, instructions=instructions
    )


def group_stats(mod: GroupMod) -> Any:
    made = to_message(DATAPATH, mod)
    message = made[-1] if isinstance(made, list) else made
    room = bytearray(8)
    for bucket in message.buckets:
        bucket.serialize(room, len(room))
    struct.pack_into("!HBxI", room, 0, len(room), message.type, mod.group)
    return parser.OFPGroupDescStats.parser(bytes(room), 0)


def wanted() -> dict[str, list[Mod]]:
    ways, found = Ways(DOMAIN), dict[str, list[Mod]]()
    routes = pipeline.route_flows(DOMAIN, ways)
    for switch in DOMAIN.plan.switches:
        base = pipeline.base_mods(DOMAIN, switch, meters=True)
        base += guard.switch_mods(DOMAIN, switch, meters=True, own_source=True)
        base += [mod for h in DOMAIN.plan.hosts if h.switch == switch.name for mod in guard.closed_mods(h)]
        found[switch.name] = [*base, *failover.groups(ways, switch.name, []).values(), *routes[switch.name]]
    return found


@pytest.mark.parametrize("name", sorted(DOMAIN.switches))
def test_all_that_a_switch_holds_reads_as_what_it_was_sent(name: str) -> None:
    buckets = (Bucket(3, (SetField("ipv4_dst", "240.0.0.9"), Output(2))), Bucket(1, (Output(4),)))
    around = Bucket(0, (SetField("eth_dst", "02:da:fe:00:00:01"), Move("reg1", "in_port_nxm", 16), Output(3)), 3)
    detour = GroupMod(failover.GROUP_BASE | 3, (Bucket(0, (Output(2),), 2), around), failover=True)
    mods = [*wanted()[name], GroupMod(77, buckets), detour]
    label = pipeline.label_match(99, 5)
    mods.append(FlowMod(pipeline.LABEL, label, 50, _onward(), cookie=pipeline.label_cookie(99)))
    flows = [flow_stats(m) for m in mods if isinstance(m, FlowMod)]
    groups = [group_stats(m) for m in mods if isinstance(m, GroupMod)]
    meters = [
        SimpleNamespace(meter_id=m.meter, bands=[SimpleNamespace(rate=m.rate_pps, burst_size=m.burst)])
        for m in mods if isinstance(m, MeterMod)
    ]  # fmt: skip
    found = to_found(DATAPATH, flows, groups, meters)
    change = reconcile(found, mods)
    assert not found.unread
    assert (change.first, change.last, change.kept) == ([], [], len(flows)), "nothing is sent to a switch that is right"


def _onward() -> tuple[Action, ...]:
    return failover.out_of(failover.GROUP_BASE | 3)


def test_a_flow_that_none_of_ours_is_like_is_counted_and_left_alone() -> None:
    strange = SimpleNamespace(
        table_id=0,
        priority=1,
        cookie=0,
        match=parser.OFPMatch(),
        instructions=[parser.OFPInstructionWriteMetadata(1, 1)],
    )
    found = to_found(DATAPATH, [strange], [], [])
    assert (found.flows, found.unread) == ([], 1)
