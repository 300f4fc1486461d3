"""Queries on the fake fabric: a class label finds the MDFPs that satisfy it, in the proportion QIRCE chose."""

from __future__ import annotations

import ipaddress
from itertools import pairwise
from typing import Any

import pytest

from controller.plugins.engines import Engines
from controller.southbound.failover import GROUP_BASE
from controller.southbound.openflow import FlowMod, GroupMod, ToGroup
from controller.values.knowledge import ModelAt
from controller.values.metrics import OwnMetric
from packets.labels import LABEL_NETWORK, class_label, label_address
from packets.messages import (
    Ask,
    AskPart,
    AskReplicas,
    Need,
    Refused,
    Register,
    Replicas,
    Report,
    decode_message,
    encode_message,
)
from packets.queries import query_label
from packets.wire import Flag, Header, PacketType, decode, encode
from tests.fake_fabric import Journey, World, run, small_plan

PLAN = small_plan()
LABEL = label_address(class_label("vignettes", 0))


ANY = Need()
MODELS = {"mdfp1": 0x110_0001, "mdfp3": 0x130_0001}


def query(task: str = "vignettes", number: int = 1, need: Need = ANY) -> bytes:
    header = Header(type=PacketType.QUERY, transfer_id=number, object_id=query_label("vignettes", need))
    return encode(header, encode_message(Ask(task=task, sample=[1.0], need=need)))


def hosted(name: str, accuracy: float = 0.9, **more: float) -> dict[str, Any]:
    return {"task": "vignettes", "label": MODELS[name], "accuracy": {"broad": accuracy, "cardiology": 0.8}, **more}


async def deployed(
    *names: str, accuracy: float = 0.9, load: float = 0.0, together: bool = False, engines: Engines | None = None
) -> World:
    world = World(PLAN, together=together, engines=engines)
    await world.start()
    for name in names:
        host = world.hosts[name]
        attributes = {"models": [hosted(name, accuracy)], "trust": 0.9, "load": load, "latency_ms": 1.0}
        await world.tell(name, Register(name=name, role=host.role, address=host.address, attributes=attributes))
    return world


def choose(world: World, number: int) -> None:
    for switch in world.fabric.switches.values():
        switch.choose = lambda count: min(number, count - 1)


def ask(world: World, asker: str = "asker4", label: str = LABEL) -> Journey:
    return world.send(asker, label, query())


def test_one_model_gets_all_queries_and_only_the_first_is_handed_up() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        assert ask(world).punted == 1
        await world.settle()
        assert len(world.fabric.inbox["mdfp3"]) == 2 - 0  # its registration's answer, and the query
        journey = ask(world)
        assert (journey.punted, journey.ends) == (0, ["mdfp3"])
        assert all(ipaddress.IPv4Address(d) in LABEL_NETWORK for _, d in journey.hops)
        assert journey.delivered[0][1]["ipv4_dst"] == world.hosts["mdfp3"].address

    run(work)


def test_the_first_part_of_a_stream_opens_its_class_as_any_query_does() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        part = AskPart(task="vignettes", samples=[[1.0]] * 8, stream=1, total=20, size=8, number=0)
        header = Header(type=PacketType.QUERY, transfer_id=1, object_id=query_label("vignettes", ANY))
        assert world.send("asker4", LABEL, encode(header, encode_message(part))).punted == 1
        await world.settle()
        assert len(world.fabric.inbox["mdfp3"]) == 2, "its registration's answer, and the part"
        assert (ask(world).punted, ask(world).ends) == (0, ["mdfp3"])

    run(work)


def test_two_models_share_by_select_group_and_either_way_ends_at_one_of_them() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        ask(world)
        await world.settle()
        ends = set()
        for number in (0, 1):
            choose(world, number)
            journey = ask(world)
            assert journey.punted == 0 and len(journey.ends) == 1
            ends.add(journey.ends[0])
        assert ends == {"mdfp1", "mdfp3"}
        groups = [g for s in world.fabric.switches.values() for g in s.groups.values() if not g.failover]
        assert len(groups) == 1 and [b.weight for b in groups[0].buckets] == [100, 100]

    run(work)


def test_other_askers_get_paths_of_their_own() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        for asker in ("asker4", "h11", "h21", "h33"):
            ask(world, asker)
            await world.settle()
        for asker in ("asker4", "h11", "h21", "h33"):
            for number in (0, 1):
                choose(world, number)
                journey = ask(world, asker)
                assert journey.punted == 0 and journey.ends[0] in ("mdfp1", "mdfp3")

    run(work)


def test_load_moves_queries_away_and_a_model_that_is_gone_is_left() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        ask(world)
        await world.settle()
        await world.tell("mdfp1", Report(name="mdfp1", sequence=1, attributes={"latency_ms": 500.0}))
        await world.by_kas[4].queries.reweigh()
        weights = dict(world.of("query.steered")[-1]["weights"])
        assert weights["3:@mdfp/0#1300001"] == 100 and weights["1:@mdfp/0#1100001"] < 10
        world.fabric.unplug("mdfp1", world.hosts["mdfp1"].switch)
        await world.settle()
        await world.by_kas[4].queries.reweigh()
        for number in (0, 1):
            choose(world, number)
            assert ask(world).ends == ["mdfp3"]
        used = [a.group for f in world.fabric.switches["k4g"].flows for a in f.actions if isinstance(a, ToGroup)]
        assert all(group >= GROUP_BASE for group in used), "one model left: no group shares the class"

    run(work)


def test_no_model_is_a_refusal_in_words_to_the_asker() -> None:
    async def work() -> None:
        world = await deployed()
        ask(world)
        await world.settle()
        header, payload = decode(world.fabric.inbox["asker4"][-1].payload)
        answer = decode_message(payload)
        assert header.type is PacketType.RESPONSE and header.flags & Flag.REPLY and header.transfer_id == 1
        assert isinstance(answer, Refused) and "deploy one first" in answer.reason

    run(work)


def test_the_last_model_gone_gives_the_class_back_to_the_controller() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        ask(world)
        await world.settle()
        world.fabric.unplug("mdfp3", world.hosts["mdfp3"].switch)
        await world.settle()
        await world.by_kas[4].queries.reweigh()
        assert ask(world).punted == 1, "no stale rule in the asker's K-AS"
        await world.settle()
        assert isinstance(decode_message(decode(world.fabric.inbox["asker4"][-1].payload)[1]), Refused)

    run(work)


def test_an_accuracy_class_is_only_served_by_models_that_reach_it() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", accuracy=0.7)
        host = world.hosts["mdfp3"]
        models = [hosted("mdfp3", 0.95)]
        await world.tell(
            "mdfp3",
            Register(name="mdfp3", role="mdfp", address=host.address, attributes={"models": models, "trust": 0.9}),
        )
        need = Need(broad_accuracy=0.9)
        strict = label_address(class_label("vignettes", 9))
        world.send("asker4", strict, query(need=need))
        await world.settle()
        for number in (0, 1):
            choose(world, number)
            assert ask(world, label=strict).ends == ["mdfp3"]

    run(work)


def test_a_query_under_the_label_of_another_task_is_refused() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        world.send("asker4", LABEL, query(task="heart"))
        await world.settle()
        assert "not one of task heart" in world.of("packet.refused")[0]["reason"]

    run(work)


def test_a_silent_k_as_keeps_its_classes_and_costs_no_other() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        ask(world)
        await world.settle()
        queries = world.by_kas[4].queries
        before = {key: held.weights for key, held in queries.active.items()}
        world.mute.add(3)
        await queries.reweigh()
        assert {key: held.weights for key, held in queries.active.items()} == before
        assert any("keep their weights" in d["text"] for d in world.of("warning"))
        assert world.of("query.unserved") == []

    run(work)


def test_rules_grow_with_classes_and_models_not_with_askers() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        for asker in ("asker4", "h11", "h21", "h33"):
            ask(world, asker)
            await world.settle()
        once = {name: len(s.flows) for name, s in world.fabric.switches.items()}
        for asker in ("asker4", "h11", "h21", "h33"):
            assert ask(world, asker).punted == 0
        await world.settle()
        assert {name: len(s.flows) for name, s in world.fabric.switches.items()} == once
        label = class_label("vignettes", 0)
        for name, switch in world.fabric.switches.items():
            rules = [f for f in switch.flows if f.match.get("ipv4_dst") == label_address(label)]
            assert len(rules) <= 1 and not any("ipv4_src" in f.match for f in rules), name

    run(work)


def test_new_weights_go_into_the_group_that_is_there() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        ask(world)
        await world.settle()
        since = len(world.fabric.sent)
        await world.tell("mdfp1", Report(name="mdfp1", sequence=1, attributes={"latency_ms": 40.0}))
        await world.by_kas[4].queries.reweigh()
        sent = [mod for _, mod in world.fabric.sent[since:] if isinstance(mod, GroupMod | FlowMod)]
        assert sent and all(isinstance(mod, GroupMod) and mod.modify for mod in sent)

    run(work)


def test_an_asker_that_chooses_itself_is_told_of_models_by_their_labels_and_reaches_each() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        message = AskReplicas(name="asker4", task="vignettes", need=Need(broad_accuracy=0.8))
        told = await world.tell("asker4", message)
        assert isinstance(told, Replicas) and {k.label for k in told.replicas} == set(MODELS.values())
        for name, label in MODELS.items():
            journey = world.send("asker4", label_address(label), query())
            assert (journey.punted, journey.ends) == (0, [name])

    run(work)


def test_a_metric_of_ones_own_crosses_to_other_k_as_and_an_engine_of_ones_own_heeds_it() -> None:
    async def work() -> None:
        watts = OwnMetric(source="mine.py:power", category="computing", best=20.0, worst=200.0)
        engines = Engines({"qirce": "own"}, {("qirce", "own"): coolest}, {"power_w": watts})
        world = await deployed("mdfp1", "mdfp3", engines=engines)
        for name, power_w in (("mdfp1", 110.0), ("mdfp3", 40.0)):
            await world.tell(name, Report(name=name, sequence=1, attributes={"metrics": {"power_w": power_w}}))
        ask(world)
        await world.settle()
        for number in (0, 1):
            choose(world, number)
            assert ask(world).ends == ["mdfp3"]
        [cool] = world.of("query.steered")[-1]["models"]
        assert cool["kas"] == 3 and cool["metrics"] == {"power_w": 40.0}
        assert cool["cats"]["computing"] == pytest.approx((10 + 10 * 160 / 180) / 2, abs=1e-3)
        told = await world.tell("asker4", AskReplicas(name="asker4", task="vignettes"))
        assert isinstance(told, Replicas) and [k.metrics for k in told.replicas] == [{"power_w": 40.0}]
        await world.tell("mdfp1", Report(name="mdfp1", sequence=2, attributes={"metrics": {"power_w": 30.0}}))
        await world.by_kas[4].queries.reweigh()
        assert ask(world).ends == ["mdfp1"]

    run(work)


def test_of_caches_the_nearest_alone_is_asked_however_fast_they_are() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        for name in MODELS:
            host, cache = world.hosts[name], hosted(name, service_ms=9.0, hits=0, misses=0)
            attributes = {"models": [cache], "trust": 0.9}
            await world.tell(name, Register(name=name, role=host.role, address=host.address, attributes=attributes))
        for asker, near in (("owner1", "mdfp1"), ("mdfp1", "mdfp1"), ("mdfp3", "mdfp3"), ("asker4", "mdfp1")):
            told = await world.tell(asker, AskReplicas(name=asker, task="vignettes"))
            assert isinstance(told, Replicas) and [k.label for k in told.replicas] == [MODELS[near]]
        journeys = [world.send("asker4", LABEL, query(number=n)).ends for n in range(8)]
        assert journeys == [["mdfp1"]] * 8, "as far as the other, and one of them"

    run(work)


def coolest(models: list[ModelAt], path_ms: dict[str, float]) -> list[tuple[str, int]]:
    return [(min(models, key=lambda m: m.metrics.get("power_w", 1e9)).node, 100)]


def test_a_query_that_may_not_leave_its_k_as_is_answered_there_or_refused_with_the_reason() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        need = Need(local=True)
        label = label_address(query_label("vignettes", need))
        world.send("h11", label, query(need=need))
        await world.settle()
        for number in (0, 1):
            choose(world, number)
            assert ask(world, "h11", label).ends == ["mdfp1"]
        world.send("asker4", label, query(need=need))
        await world.settle()
        answer = decode_message(decode(world.fabric.inbox["asker4"][-1].payload)[1])
        assert isinstance(answer, Refused) and "in the asker's own K-AS" in answer.reason

    run(work)


def test_a_deadline_that_none_can_meet_is_refused_with_the_one_that_could_be() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3")
        need = Need(deadline_ms=1, expert_group="cardiology", expert_accuracy=0.95)
        world.send("asker4", label_address(query_label("vignettes", need)), query(need=need))
        await world.settle()
        answer = decode_message(decode(world.fabric.inbox["asker4"][-1].payload)[1])
        assert isinstance(answer, Refused)
        for words in ("within 1 ms is asked for", "cardiology accuracy 0.95", "would be served", "cardiology 0.8"):
            assert words in answer.reason, answer.reason

    run(work)


def test_a_label_of_another_class_is_told_apart() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        ask(world)
        await world.settle()
        held = next(iter(world.by_kas[4].queries.active.values()))
        held.need = Need(deadline_ms=7)  # as if two classes had drawn one label
        told = await world.tell("asker4", AskReplicas(name="asker4", task="vignettes"))
        assert isinstance(told, Refused) and "with other needs" in told.reason

    run(work)


def test_leads_follow_the_links_that_are_there() -> None:
    async def work() -> None:
        world = await deployed("mdfp3")
        ask(world)
        await world.settle()
        way = [name for name, _ in ask(world).hops]
        between = next((a, b) for a, b in pairwise(way) if a.endswith("g") and b.endswith("g"))
        world.fabric.unplug(*between)
        await world.settle()
        journey = ask(world)
        assert journey.ends == ["mdfp3"] and between not in list(pairwise(journey.switches))

    run(work)


def test_a_class_that_one_k_as_gives_back_stays_in_another_of_the_same_control_centre() -> None:
    async def work() -> None:
        world = await deployed("mdfp1", "mdfp3", together=True)
        need = Need(local=True)
        label = label_address(query_label("vignettes", need))
        for asker in ("h11", "h33"):
            world.send(asker, label, query(need=need))
            await world.settle()
        world.fabric.unplug("mdfp3", world.hosts["mdfp3"].switch)
        await world.settle()
        assert [e["kas"] for e in world.of("query.unserved")] == [3]
        journey = world.send("h11", label, query(need=need))
        assert (journey.punted, journey.ends) == (0, ["mdfp1"])

    run(work)
