"""From what a switch holds to what it should hold, with no gap on the way."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.southbound.openflow import Action, Bucket, FlowMod, Found, GroupMod, MeterMod, Mod, Output, ToGroup
from controller.southbound.reconcile import key, reconcile
from tests.fake_fabric import FakeSwitch

GROUPS = st.sets(st.integers(1, 3))


@st.composite
def holdings(draw: st.DrawFn) -> list[Mod]:
    """Draw what a switch may hold: meters, groups, and flows that may lead to them."""
    meters = [MeterMod(n, draw(st.sampled_from([100, 200])), 10) for n in sorted(draw(GROUPS))]
    groups = [GroupMod(n, (Bucket(draw(st.integers(1, 2)), (Output(1),)),)) for n in sorted(draw(GROUPS))]
    ways: list[tuple[Action, ...]] = [(), (Output(1),), (Output(2),), *((ToGroup(g.group),) for g in groups)]
    metered = [None, *(m.meter for m in meters)]
    flows = {
        (table, priority, port): FlowMod(
            table, {"in_port": port} if port else {}, priority, draw(st.sampled_from(ways)),
            meter=draw(st.sampled_from(metered)), cookie=draw(st.sampled_from([0, 7])),
        )
        for table, priority, port in draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 2))))
    }  # fmt: skip
    return [*meters, *groups, *flows.values()]


def held(switch: FakeSwitch) -> Found:
    groups = [replace(g, modify=False) for g in switch.groups.values()]
    return Found(list(switch.flows), groups, [replace(m, modify=False) for m in switch.meters.values()])


@given(before=holdings(), wanted=holdings())
def test_the_switch_ends_with_what_is_wanted_and_nothing_right_is_ever_missing(
    before: list[Mod], wanted: list[Mod]
) -> None:
    switch = FakeSwitch()
    for mod in before:
        switch.apply(mod)  # type: ignore[arg-type]
    found = held(switch)
    change = reconcile(found, wanted)
    flows = {key(m): m for m in wanted if isinstance(m, FlowMod)}
    stay = [f for f in found.flows if flows.get(key(f)) == f]
    assert change.kept == len(stay)
    for mod in [*change.first, *change.last]:
        assert not (isinstance(mod, GroupMod | MeterMod) and not mod.modify and not getattr(mod, "delete", False)) or (
            mod not in found.groups + found.meters
        ), "what is there already is changed, never made anew: that would delete its flows"
        switch.apply(mod)  # type: ignore[arg-type]
        assert all(f in switch.flows for f in stay)
    assert {key(f): f for f in switch.flows} == flows
    assert {n: g.buckets for n, g in switch.groups.items()} == {
        m.group: m.buckets for m in wanted if isinstance(m, GroupMod)
    }
    assert not reconcile(held(switch), wanted).first, "done once, there is nothing to do"


def test_what_is_spared_stays_with_the_groups_it_may_lead_to() -> None:
    group, flow = GroupMod(5, (Bucket(1, (Output(1),)),)), FlowMod(3, {"in_port": 1}, 50, (ToGroup(5),), cookie=9)
    change = reconcile(Found([flow], [group]), [], lambda f: f.cookie == 9)
    assert (change.first, change.last) == ([], [])
    assert len(reconcile(Found([flow], [group]), []).last) == 2
