"""The benchmark of abstraction: where two routes are compared, and that both decide on the same network."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.abstraction import Journey, Mark, compare, missing, ratios
from benchmarks.abstraction_world import HOME, OBJECT, Knowledge, World
from controller.values.decisions import JobView, Measured, Request


def journey(*missing: float, each_s: float = 1.0, met: bool | None = None) -> Journey:
    marks = [Mark(each_s * n, n * 100, short) for n, short in enumerate(missing, 1)]
    return Journey(missing[-1] == 0 if met is None else met, marks, 0.8, 0.9)


def test_routes_that_meet_the_targets_are_compared_by_when_they_do() -> None:
    full, other = journey(0.3, 0.0), journey(0.2, 0.1, 0.0)
    assert [mark.seconds for mark in compare(full, other)] == [2.0, 3.0]


def test_a_route_that_misses_is_timed_to_where_it_came_nearest() -> None:
    full, other = journey(0.3, 0.1, 0.05, 0.0), journey(0.2, 0.15, 0.1, 0.2)
    assert [mark.seconds for mark in compare(full, other)] == [2.0, 3.0]
    assert [mark.seconds for mark in compare(other, full)] == [3.0, 2.0]


def test_ratios_are_of_each_network_and_above_one_is_slower() -> None:
    found = ratios([(journey(0.0), journey(0.1, 0.0)), (journey(0.1, 0.0), journey(0.0))])
    assert (found["ratio_mean"], found["ratio_worst"], found["ratio_geometric"]) == (1.25, 2.0, 1.0)
    assert (found["missed"], found["bytes"]) == (0, 1.25)


def test_what_is_missing_counts_both_targets_and_no_surplus() -> None:
    request = Request(task="t", groups=["a"], broad_accuracy=0.8, expert_group="a", expert_accuracy=0.9)
    assert missing(request, Measured(broad=0.7, per_group={"a": 0.85}, samples=1)) == pytest.approx(0.15)
    assert missing(request, Measured(broad=0.9, per_group={"a": 0.95}, samples=1)) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("sklearn")
    from benchmarks.tfam import write_tables

    tables = write_tables(tmp_path_factory.mktemp("tables"))
    return next(w for w in (World(seed, tables) for seed in range(1, 9)) if w.name == "digits")


def test_every_place_belongs_to_one_abstract_terminal_and_whole_is_one_a_kas(world: World) -> None:
    places = [h.name for h in world.plan.hosts if h.role in ("data", "compute")]
    for members in (3, 0):
        groups = world.groups(members)
        assert sorted(n for of in groups.values() for names in of.values() for n in names) == sorted(places)
    assert all(len(of) == 1 for of in world.groups(0).values())


def test_what_is_met_behind_an_abstract_offer_is_a_real_meeting(world: World) -> None:
    meetings = Knowledge(world, {}).meetings()
    hidden = Knowledge(world, world.groups(3))
    offers = hidden.offers()
    assert 0 < len(offers) < len({m.data_node for m in meetings})

    async def met() -> None:
        step = (await hidden.minds[HOME].next_visits(world.request, JobView(), offers)).steps[0]
        meeting = await hidden.settle(step.option)
        assert meeting is not None
        real = meetings[meeting]
        assert real.kas == step.option.kas
        assert real.samples <= step.option.samples
        hidden.trained(real.kas, meeting.data_node)
        assert hidden.minds[real.kas].place(OBJECT, step.option.handle) is None

    asyncio.run(met())
