"""A terminal that lies in a report, or reports for another: refused, counted, its trust falls, the map stays true."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from packets.messages import Ack, Refused, Register, Report
from packets.wire import PacketType
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
FIGURES = (math.nan, math.inf, -math.inf, 1e308, -1e308, -1, -0.5, 1 << 63, True, None, "1", [1.0], {"a": 1.0})
HONEST = {
    "samples": 100, "quality": 0.8, "group_shares": {"cardiology": 1.0}, "data_age_s": 1.0, "queue": 0, "load": 0.1,
    "compute_samples_per_s": 10.0, "memory_mib": 100.0, "latency_ms": 1.0, "test_samples": 5, "epsilon": 1.0,
    "metrics": {"power_w": 60.0}, "models": [{"task": "vignettes", "label": 7, "service_ms": 1.0}],
}  # fmt: skip


def sane(value: Any) -> bool:
    """Tell whether a value of the map could be true."""
    if isinstance(value, dict):
        return all(sane(v) for v in value.values())
    if isinstance(value, list):
        return all(sane(v) for v in value)
    return isinstance(value, bool | str) or value is None or (math.isfinite(value) and 0 <= value <= 1e15)


async def standing() -> World:
    world = World(PLAN)
    await world.start()
    for name in ("h11", "h13"):
        host = world.hosts[name]
        joined = Register(name=name, role=host.role, address=host.address, attributes=HONEST)
        assert isinstance(await world.tell(name, joined, PacketType.TELEMETRY), Ack)
    return world


def test_every_lie_about_every_attribute_is_refused_and_counted() -> None:
    async def work() -> None:
        world = await standing()
        dcc = world.by_kas[1]
        before, counted = {a: v.value for a, v in dcc.services.krrm.node("h11").attributes.items()}, 0
        for attribute in HONEST:
            for lie in FIGURES:
                if attribute in ("metrics", "group_shares") and lie == {"a": 1.0}:
                    continue  # could be
                report = Report(name="h11", sequence=1, attributes={"queue": 3, attribute: lie})
                answer = await world.tell("h11", report, PacketType.TELEMETRY)
                world.now_s += 1.0
                assert isinstance(answer, Refused), (attribute, lie)
                counted += 1
        refused = [d for d in world.of("packet.refused") if d["reason"] == "report"]
        assert len(refused) == counted and {d["node"] for d in refused} == {"h11"}
        after = {a: v.value for a, v in dcc.services.krrm.node("h11").attributes.items() if a in before}
        assert {a: v for a, v in after.items() if a != "trust"} == before, "taken whole or not at all"
        assert dcc.trusting.ledger.trust("h11") < 0.3 < dcc.trusting.ledger.trust("h13")
        assert not world.of("error")

    run(work)


def test_whatever_is_reported_the_map_holds_what_could_be_true() -> None:
    rng = random.Random(16)

    def anything(depth: int = 0) -> Any:
        kind = rng.randrange(6 if depth < 3 else 4)
        if kind == 4:
            return {rng.choice(("task", "accuracy", "label", "x", "")): anything(depth + 1) for _ in range(3)}
        if kind == 5:
            return [anything(depth + 1) for _ in range(rng.randrange(4))]
        return rng.choice((*FIGURES, 0.5, 3, "task", "x" * 300))

    async def work() -> None:
        world = await standing()
        krrm = world.by_kas[1].services.krrm
        for number in range(400):
            attributes = {rng.choice((*HONEST, "own", "x" * 50)): anything() for _ in range(2)}
            await world.tell("h11", Report(name="h11", sequence=number, attributes=attributes), PacketType.TELEMETRY)
            world.now_s += 0.1
            held = {a: v.value for a, v in krrm.node("h11").attributes.items() if a != "own"}
            assert sane(held), held
        assert not world.of("error")

    run(work)


@pytest.mark.parametrize("kind", [Register, Report])
def test_nobody_reports_for_another(kind: type) -> None:
    async def work() -> None:
        world = await standing()
        before = world.by_kas[1].services.krrm.node("h13")
        host = world.hosts["h13"]
        more = {"role": host.role, "address": host.address} if kind is Register else {"sequence": 1}
        answer = await world.tell("h11", kind(name="h13", attributes={"queue": 9}, **more), PacketType.TELEMETRY)
        assert isinstance(answer, Refused) and "may not speak for h13" in answer.reason
        assert [(d["reason"], d["node"]) for d in world.of("packet.refused")] == [("holder", "h11")]
        assert world.by_kas[1].services.krrm.node("h13") == before

    run(work)
