"""One intelligence, several houses: a control centre, and a terminal that has nothing but what it heard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.engines.routing.mtrce import follow
from controller.errors import SteeringError
from controller.intelligence import Intelligence
from controller.plugins.engines import Engines
from controller.values.decisions import JobView, Load, Option, Plan, Request
from controller.values.errors import EngineError
from packets.messages import Ack, JobSpec, Register, Submit, SubmitReply
from packets.queries import Need
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
TASK = "vignettes"
SALT = bytes(range(16))


def about(name: str) -> dict[str, Any]:
    """What a terminal says of itself; the larger its number, the more it holds."""
    number = int("".join(c for c in name if c.isdigit()) or 1)
    return {
        "samples": 100 * number, "group_shares": {"cardiology": 1.0}, "quality": 0.8, "compute_samples_per_s": 500.0,
        "trust": 0.9, "test_samples": 50,
    }  # fmt: skip


def terminal_house(engines: Engines | None = None) -> Intelligence:
    """What a terminal houses: no switches, no loop, no socket, no clock; it was told of all K-AS by gossip."""
    mind = Intelligence(PLAN.domain(), engines, salt=SALT)
    for host in PLAN.hosts:
        if host.role != "host":
            mind.hear(host, about(host.name), now_s=5.0)
    return mind


def request() -> Request:
    return Request(task=TASK, groups=["cardiology"], broad_accuracy=0.5, max_visits=4)


async def first_place(mind: Intelligence, object_id: int) -> tuple[str, str]:
    offers = mind.offers(object_id, request(), now_s=6.0).options
    plan = await mind.next_visits(request(), JobView(at_kas=1), offers)
    place = mind.place(object_id, plan.steps[0].option.handle)
    assert place is not None
    return place.data_node, place.facility


def test_a_control_centre_and_a_terminal_house_the_same_and_say_the_same() -> None:
    async def work() -> None:
        world = World(PLAN, together=True)
        await world.start()
        for host in PLAN.hosts:
            if host.role != "host":
                message = Register(name=host.name, role=host.role, address=host.address, attributes=about(host.name))
                assert isinstance(await world.tell(host.name, message), Ack)
        centre, terminal = world.by_kas[1].services.intelligence, terminal_house()
        assert type(centre) is type(terminal)
        assert [n.name for n in centre.map.nodes()] == [n.name for n in terminal.map.nodes()]
        assert await first_place(centre, 7) == await first_place(terminal, 7)
        owner = next(h for h in PLAN.hosts if h.role == "model_owner").name
        spec = JobSpec(task=TASK, broad_accuracy=0.5, max_visits=4)
        reply = await world.tell(owner, Submit(name=owner, spec=spec))
        assert isinstance(reply, SubmitReply)
        options = terminal.offers(8, request(), now_s=6.0).options
        assert (await terminal.admits(request(), options, verifiers=1)).admitted is reply.admitted

    run(work)


def test_houses_share_nothing_but_what_they_hear() -> None:
    first, second = terminal_house(), terminal_house()
    place = asyncio.run(first_place(first, 7))
    first.forget(place[1])
    first.forget(place[0])
    assert asyncio.run(first_place(second, 7)) == place
    assert asyncio.run(first_place(first, 7)) != place


def test_each_house_has_engines_of_its_own() -> None:
    def last(request: Request, view: JobView, options: list[Option], load: Load | None) -> Plan:
        return follow(request, view, options, [options[-1].handle], load)

    usual, odd = terminal_house(), terminal_house(Engines.of(mtrce=last))
    asked = odd.offers(7, request(), now_s=6.0).options
    place = odd.place(7, asked[-1].handle)
    assert place is not None
    assert asyncio.run(first_place(odd, 7)) == (place.data_node, place.facility)
    assert asyncio.run(first_place(usual, 7)) != (place.data_node, place.facility)


def test_handles_of_another_house_mean_nothing() -> None:
    mind = terminal_house()
    other = Intelligence(mind.domain, salt=b"another secret of its own")
    handle = mind.offers(7, request(), now_s=6.0).options[0].handle
    assert mind.place(7, handle) is not None
    assert other.place(7, handle) is None
    assert mind.place(8, handle) is None
    assert mind.explain(7, handle, 6.0) and not other.explain(7, handle, 6.0)


def test_nowhere_to_go_is_said() -> None:
    mind = Intelligence(PLAN.domain(), salt=SALT)
    assert mind.offers(7, request(), now_s=6.0).options == []
    with pytest.raises((EngineError, SteeringError)):
        asyncio.run(mind.next_visits(request(), JobView(at_kas=1), []))


def test_queries_are_answered_by_models_that_are_good_enough() -> None:
    mind = terminal_house()
    host = next(h for h in PLAN.hosts if h.role == "mdfp")
    models = [{"task": TASK, "accuracy": {"broad": 0.8}}]
    mind.hear(host, {"models": models}, now_s=7.0)
    found = mind.models(TASK, now_s=8.0)
    assert [m.node for m in found] == [host.name]
    verdict, weights = asyncio.run(mind.answerers(TASK, found, Need(broad_accuracy=0.7), {host.name: 1.0}))
    assert verdict.admitted and [node for node, _ in weights] == [host.name]
    verdict, weights = asyncio.run(mind.answerers(TASK, found, Need(broad_accuracy=0.9), {host.name: 1.0}))
    assert not verdict.admitted and weights == []
