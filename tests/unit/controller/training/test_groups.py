"""Groups: who leads, who takes part, how places are named, and which encoding suits the way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller.border.messages import AskNextStop, Facility
from controller.engines.training import encoding
from controller.errors import SteeringError
from controller.training.groups import decide, rounds_of, taking_part
from controller.training.jobs import Decision, hyper_of
from controller.values.decisions import Hyper, Option, Request, Step
from controller.values.errors import EngineError
from controller.values.handles import member_place, read_member, read_place
from packets.messages import Fixed, Order, encode_message

JOB = 0xABCDEF0123456789


def request(method: str = "federated", **more: Any) -> Request:
    about: dict[str, Any] = {"task": "vignettes", "groups": ["x", "y"], "broad_accuracy": 0.8, "model_bytes": 1_000_000}
    return Request(method=method, **about | more)


def option(kas: int, handle: str, **more: Any) -> Option:
    about: dict[str, Any] = {"mix": {"x": 0.25, "y": 0.75}, "samples": 100, "epoch_s": 1.0, "reach_s": 0.1}
    return Option(kas=kas, handle=handle, **about | more)


class FakeServices:
    """K-AS 1-2-3 in a line; a compute facility in each."""

    all_kas = (1, 2, 3)

    def __init__(self, ready: dict[int, bool] | None = None) -> None:
        self.domain = SimpleNamespace(kas_path=lambda a, b: list(range(min(a, b), max(a, b) + 1)))
        self.ready = ready or {1: True, 2: True, 3: True}

    async def facilities(self, make: Any) -> list[Facility]:
        assert make(2).role == "compute"
        return [Facility(kas=k, handle="@compute/0", attributes={"ready": r}) for k, r in self.ready.items()]


def decided(services: FakeServices, wanted: Request, options: list[Option], exclude: list[str] | None = None) -> Any:
    ask = AskNextStop(kas=1, object_id=JOB, visit=0, holder_kas=1, exclude=exclude or [])
    return asyncio.run(decide(services, wanted, JOB, 0, options, ask))  # type: ignore[arg-type]


EVERYWHERE = [option(k, f"{k}{n}") for k in (1, 2, 3) for n in (1, 2)]


def test_the_facility_nearest_to_all_members_leads() -> None:
    led = decided(FakeServices(), request(), EVERYWHERE)
    assert (led.kas, led.handle, led.group.place) == (2, "@compute/0", "2:@compute/0")
    assert led.group.members[0] == f"1:@of/{JOB:x}/11"
    assert led.plan.steps[0].option.samples == 600 and led.plan.steps[0].option.mix == {"x": 0.25, "y": 0.75}
    assert led.plan.steps[0].verify


def test_a_facility_that_is_away_or_excluded_does_not_lead() -> None:
    assert decided(FakeServices({1: True, 2: False, 3: True}), request(), EVERYWHERE).kas == 1
    assert decided(FakeServices(), request(), EVERYWHERE, ["2:@compute/0"]).kas == 1
    with pytest.raises(EngineError, match="ready to lead"):
        decided(FakeServices({1: False}), request(), EVERYWHERE)


def test_only_trusted_data_that_stays_takes_part_each_once() -> None:
    options = [option(1, "a"), option(1, "b", move_bytes=5), option(2, "c", trust=0.1), option(2, "d", samples=0)]
    assert [o.handle for o in taking_part(request(), options)] == ["a"]
    with pytest.raises(EngineError, match="may take part"):
        decided(FakeServices(), request(), options[1:])


@pytest.mark.parametrize(
    ("method", "action", "secure"),
    [("federated", "federate", False), ("secure", "federate", True), ("split", "split", False)],
)
def test_methods_become_orders(method: str, action: str, secure: bool) -> None:
    group = decided(FakeServices(), request(method), EVERYWHERE).group
    assert (group.action, group.secure, group.rounds) == (action, secure, 1)


def test_gossip_gets_as_many_rounds_as_reach_everybody() -> None:
    assert [rounds_of("gossip", n) for n in (1, 2, 4, 12)] == [1, 1, 2, 4]


def test_an_order_to_the_largest_group_fits_one_packet() -> None:
    many = [option(2, f"{n:016x}") for n in range(60)]
    group = decided(FakeServices(), request(), many).group
    order = Order(
        action="federate", object_id=JOB, visit=30_000, members=group.members, place=group.place, rounds=4, secure=True,
        task="v" * 32, expert_group="cardiology", group_weights={"cardiology": 1.25, "gastroenterology": 0.75},
        compression="topk:0.0525",
    )  # fmt: skip
    assert len(encode_message(order)) <= 1392


def test_places_are_read_back_and_others_refused() -> None:
    kas, handle = read_place(member_place(JOB, option(3, "0123456789abcdef")))
    assert kas == 3 and read_member(handle.removeprefix("@of/")) == (JOB, "0123456789abcdef")
    for text in (
        "",
        "3",
        "3:",
        "0:@of/1/a",
        "256:@compute/0",
        "x:@compute/0",
        "2:@node/owner1",
        "2:@mpvu/0",
        "²:@of/1/a",
    ):
        with pytest.raises(SteeringError):
            read_place(text)
    with pytest.raises(SteeringError):
        read_member("nothex/a")


def step(reach_s: float, epoch_s: float) -> Step:
    hyper = Hyper(epochs=2.0, batch_size=64, learning_rate=0.002)
    return Step(
        option=option(1, "a", reach_s=reach_s, epoch_s=epoch_s), hyper=hyper, expected={}, cost_s=0, cost_bytes=0,
        verify=True, reason="",
    )  # fmt: skip


def test_hpo_compresses_where_the_way_counts() -> None:
    assert encoding.choose("auto", step(0.01, 1.0)) == "none"
    assert encoding.choose("auto", step(0.01, 1.0), journeys=24) == "int8"
    assert encoding.choose("auto", step(1.0, 1.0)) == "int8"
    assert encoding.choose("topk:0.1", step(0.01, 1.0)) == "topk:0.1"


def test_what_the_owner_fixes_stands_and_the_rest_is_hpos() -> None:
    decision = Decision(0, "train", 1, "a", "", 1, 0.0, step=step(0.1, 1.0))
    fixed = Fixed(epochs=0.25, learning_rate=0.1, rate_decay=0.5)
    hyper = hyper_of(decision, fixed, visits=2)
    assert (hyper.epochs, hyper.batch_size, hyper.learning_rate) == (0.25, 64, pytest.approx(0.025))
    assert hyper_of(decision) == hyper_of(decision, Fixed(), 5) == decision.step.hyper  # type: ignore[union-attr]
