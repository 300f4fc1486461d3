"""Ways of inference in a scenario: what is refused, what is deployed where, in which order, and what is trained."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from controller.values.paths import host_route
from experiments import run
from experiments.commands.asking.told import summary
from experiments.commands.progress import Progress
from experiments.commands.resolving import resolve
from experiments.errors import RunFailed, ScenarioError
from experiments.load import asker_specs
from experiments.report.load import summarise
from experiments.scenarios import scenario
from experiments.scenarios.ways import check_model
from experiments.ways import (
    cached,
    cheap_job,
    collaborative,
    deploy_ways,
    ends,
    multimodal,
    sites,
    split,
    switched,
    vitals_job,
)
from hosts.inference import asked
from hosts.inference.asked import Row
from hosts.inference.load import LoadSpec
from packets.events import Event
from packets.messages import JobSpec
from packets.queries import variant_task

EDGES = {
    1: {"data": 2, "compute": 1, "mpvu": 1, "mdfp": 2, "model_owner": 1},
    2: {"mdfp": 2, "mpvu": 1, "query_owner": 1},
    3: {"mdfp": 1, "query_owner": 1},
    4: {"query_owner": 1},
}
WAN = [{"a": n, "b": n + 1, "rate_mbps": 10 * n, "delay_ms": n} for n in (1, 2, 3)]


def made(kas: dict[int, dict[str, int]] = EDGES, **more: Any) -> scenario.Scenario:
    raw = {
        "name": "mine", "network": {"kas": kas, "wan": WAN[: len(kas) - 1]}, "data": {"name": "vignettes"},
        "jobs": [{"task": "vignettes"}], **more,
    }  # fmt: skip
    return scenario.from_raw(raw, "mine.yaml")


# --- refused


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"ways": ["cahced"]}, "cahced: no way is called so; did you mean 'cached'"),
        ({"ways": ["switched"], "data": {"name": "digits"}}, "switched: task digits has no cheap model; the vignettes"),
        (
            {"jobs": [{"task": "digits", "model": "cheap"}], "data": {"name": "digits"}},
            "model cheap: task digits",
        ),
        ({"jobs": [{"task": "vignettes", "model": "cheap"}], "ways": ["cached"]}, "jobs: model cheap: .*leave it out"),
        (
            {"jobs": [{"task": "vignettes", "model": "cheap", "method": "gossip"}]},
            "by method routed alone",
        ),
        (
            {"ways": ["multimodal"], "data": {"name": "table", "hidden": 8}},
            "multimodal: task table has no vitals model",
        ),
        (
            {"jobs": [{"task": "digits", "model": "vitals"}], "data": {"name": "digits"}},
            "jobs: model vitals: task digits has no vitals model",
        ),
        ({"jobs": [{"task": "vignettes", "model": "vitals"}]}, r"jobs: model vitals: .*add `ways: \[multimodal\]`"),
        ({"ways": ["split", "cached", "split"]}, "split: it is named twice"),
        ({"ways": ["split"], "data": {"name": "table"}}, "model of task table has one layer.*hidden"),
        ({"ways": ["cached"], "queries": {"way": "split"}}, "no way 'split' is deployed; `ways` has: cached"),
        ({"queries": {"way": "cached"}}, r"no way 'cached' is deployed; add `ways: \[cached\]`"),
        ({"queries": {"way": "No Good"}}, "queries.way"),
        ({"queries": {"samples": 0}}, "queries.samples"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ScenarioError, match=why) as caught:
        made(**more)
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["", "cheap", "vitals"])
def test_a_job_on_a_standing_network_is_looked_at_likewise(model: str) -> None:
    task = made().data
    for ways in ([], ["multimodal"]):
        if model == "vitals" or (model and ways):
            with pytest.raises(ScenarioError, match=f"submit: model {model}: .*leave it out"):
                check_model(model, ways, task, "submit")
        else:
            check_model(model, ways, task, "submit")


@pytest.mark.parametrize(
    ("way", "least"), [("cached", 1), ("split", 2), ("collaborative", 1), ("switched", 2), ("multimodal", 1)]
)
def test_a_network_without_the_places_is_refused(way: str, least: int) -> None:
    kas = {1: {"data": 1, "compute": 1, "mpvu": 1, "model_owner": 1, "query_owner": 1, "mdfp": least - 1}}
    with pytest.raises(ScenarioError, match=f"{way}: it takes {least} MDFP, the network has {least - 1}"):
        made(kas, ways=[way])
    assert made({1: kas[1] | {"mdfp": least}}, ways=[way]).ways == [way]


def test_a_task_laid_over_a_scenario_is_looked_at_again(tmp_path: Path) -> None:
    file, own = tmp_path / "mine.yaml", Path(__file__).parents[3] / "examples" / "task_rings.py"
    file.write_bytes(msgspec.yaml.encode(made(ways=["cached", "split"], queries={"way": "split"})))
    assert resolve(str(file)).ways == ["cached", "split"]
    with pytest.raises(ScenarioError, match="split: the model of this task has no layers that are known"):
        resolve(str(file), task=f"{own}:Rings")


def test_a_table_with_a_hidden_layer_is_cut() -> None:
    assert made(ways=["split"], data={"name": "table", "hidden": 16}).ways == ["split"]


# --- planned


def test_places_near_who_asks_come_first() -> None:
    plan = scenario.network_plan(made())
    assert [s.name for s in sites(plan)] == ["2:@mdfp/0", "2:@mdfp/1", "3:@mdfp/0", "1:@mdfp/0", "1:@mdfp/1"]
    lower, upper = ends(plan)
    assert (lower.name, upper.name) == ("2:@mdfp/0", "3:@mdfp/0")


def test_a_cache_stands_in_each_k_as_that_asks() -> None:
    parts = cached(scenario.network_plan(made()), 7)
    assert sorted(p.to for p in parts) == ["2:@mdfp/0", "3:@mdfp/0"]
    assert {(p.variant, p.source["object_id"], p.way["kind"]) for p in parts} == {("cached", 7, "cached")}
    assert all(p.way["asks"] == [""] for p in parts), "the plain model"


def test_where_nobody_asks_beside_an_mdfp_every_k_as_with_one_has_a_cache() -> None:
    parts = cached(scenario.network_plan(scenario.load("healthcare")), 7)
    assert sorted(p.to for p in parts) == ["1:@mdfp/0", "3:@mdfp/0"]


def test_a_model_is_cut_for_the_way_between_its_sides() -> None:
    plan, asked = scenario.network_plan(made()), []

    def owner(op: str, **said: Any) -> dict[str, Any]:
        asked.append({"op": op, **said})
        part = {"source": {"file": "f", "accuracy": {}}, "way": {"kind": "upper"}}
        return {"at": 2, "cut_ms": 1.0, "whole_ms": 2.0, "split": part, "split-upper": part}

    parts, about = split(plan, owner, 7)
    assert [(p.variant, p.to) for p in parts] == [("split-upper", "3:@mdfp/0"), ("split", "2:@mdfp/0")]
    lower, upper = ends(plan)
    way = host_route(plan.domain(), lower.host.name, upper.host.name)
    assert about["at"] == 2 and asked == [
        {"op": "split", "object_id": 7, "shares": [1.0, 1.0], "rate_mbps": way.rate_mbps,
         "rtt_ms": 2 * way.delay_ms}
    ]  # fmt: skip
    assert way.rate_mbps == 20 and way.delay_ms >= 2


def test_an_ensemble_is_the_plain_model_and_others() -> None:
    parts = collaborative(scenario.network_plan(made()), 7, [8, 9])
    assert [(p.variant, p.source["object_id"], p.to) for p in parts] == [
        ("member1", 8, ""), ("member2", 9, ""), ("collaborative", 7, "2:@mdfp/0"),
    ]  # fmt: skip
    assert parts[-1].way == {"kind": "collaborative", "asks": ["member1", "member2"]}


def test_a_cheap_model_stands_near_who_asks_and_the_large_one_elsewhere() -> None:
    learned = {"accuracy": {"broad": 0.8}, "way": {"kind": "switched", "threshold": 0.6}}
    large, cheap = switched(scenario.network_plan(made()), 7, 8, learned)
    assert (large.variant, large.source, large.to) == ("large", {"object_id": 7}, "3:@mdfp/0")
    assert (cheap.variant, cheap.way, cheap.to) == ("switched", learned["way"], "2:@mdfp/0")
    assert cheap.source == {"object_id": 8, "accuracy": {"broad": 0.8}}


def test_the_cheap_models_job_is_a_journey_that_asks_for_less() -> None:
    plain = JobSpec(
        task="vignettes", method="federated", broad_accuracy=0.8, expert_group="cardiology", expert_accuracy=0.9, seed=3
    )
    job = cheap_job(plain)
    assert (job.model, job.method, job.seed, job.expert_group) == ("cheap", "routed", 3, None)
    assert job.broad_accuracy == pytest.approx(0.6) and job.expert_accuracy == 0 and plain.model == ""


def test_findings_vitals_and_their_fusion_come_where_mdo_sees_fit() -> None:
    learned = {"accuracy": {"broad": 0.8}, "way": {"kind": "multimodal", "asks": ["text", "vitals"]}, "file": "f"}
    text, vitals, both = multimodal(7, 8, learned)
    assert {p.to for p in (text, vitals, both)} == {""}
    assert (text.variant, text.source, text.way) == ("text", {"object_id": 7}, {})
    assert (vitals.variant, vitals.source, vitals.way) == ("vitals", {"object_id": 8}, {"model": "vitals"})
    assert (both.variant, both.way) == ("multimodal", learned["way"])
    assert both.source == {"file": "f", "accuracy": {"broad": 0.8}}


def test_the_vitals_models_job_asks_for_what_vitals_can_tell() -> None:
    plain = JobSpec(task="vignettes", method="split", broad_accuracy=0.8, expert_group="cardiology", seed=3)
    job = vitals_job(plain)
    assert (job.model, job.method, job.seed, job.expert_group) == ("vitals", "routed", 3, None)
    assert 0.1 < job.broad_accuracy < 0.35 and plain.model == "", "what it reaches on unseen patients"


# --- done


class Bed:
    """A network on which everything that is deployed is there at once. ``deaf``: queries that are refused at first."""

    def __init__(self, ways: list[str], deaf: int = 0) -> None:
        self.scenario, self.deaf = made(ways=ways), deaf
        self.plan, self.absent = scenario.network_plan(self.scenario), set[str]()
        self.events, self.told = list[Event](), list[tuple[str, str, dict[str, Any]]]()
        self.hub = SimpleNamespace(emit=self.emit)

    def emit(self, kind: str, /, **data: Any) -> None:
        self.events.append(Event(kind=kind, source="test", t_unix_s=time.time(), data=data))

    def wait_event(self, kind: str, timeout_s: float, mark: int = 0, *, where: Any = bool, **match: Any) -> Event:
        for event in self.events[mark:]:
            if event.kind == kind and match.items() <= event.data.items() and where(event.data):
                return event
        raise RunFailed(f"no {kind}")

    def tell(self, name: str, op: str, timeout_s: float = 1.0, **said: Any) -> dict[str, Any]:
        self.told.append((name, op, said))
        if op == "query":
            self.emit("query.sent", id=f"{name}-1", node=name, task=said["task"])
            if self.deaf:
                self.deaf -= 1
                raise RunFailed("no model of it yet")
            return {"id": f"{name}-1"}
        if op == "split":
            part = {"source": {"file": "f", "accuracy": {}}, "way": {"kind": "upper"}}
            return {"at": 1, "cut_ms": 1.0, "whole_ms": 2.0, "split": part, "split-upper": part}
        number = 0x1_0000_0001 + len(self.told)
        if op == "switch":
            way = {"kind": "switched", "model": "cheap", "asks": ["large"], "threshold": 0.6, "temperature": 1.2}
            self.emit("way.learned", copy=number, way=way, accuracy={"broad": 0.8})
            return {"object_id": number}
        if op == "fuse":
            way = {"kind": "multimodal", "asks": ["text", "vitals"]}
            self.emit("way.learned", copy=number, way=way, accuracy={"broad": 0.8}, file="f")
            return {"object_id": number}
        kas, _, handle = (said["to"] or "1:@mdfp/1").partition(":")
        node = [h.name for h in self.plan.hosts if h.role == "mdfp" and h.kas == int(kas)][int(handle[-1])]
        for variant in said["way"].get("asks", []):
            self.emit("query.steered", task=variant_task("vignettes", variant), kas=int(kas))
        self.emit("model.deployed", object_id=number, node=node)
        self.emit("krrm.updated", name=node, attributes={"load": 0.0})
        self.emit("krrm.updated", name=node, attributes={"models": [{"label": number & 0xFFF_FFFF}]})
        return {"object_id": number}


def taught(jobs: list[JobSpec], *numbers: int) -> Callable[[Any], list[int]]:
    """Return what stands in for training: it keeps the jobs that are wanted, and says what their models are."""

    def train(wanted: Any) -> list[int]:
        jobs.extend(wanted)
        return list(numbers)

    return train


def test_ways_are_deployed_in_order_and_each_is_asked_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.ways.LOOK_S", 0.0)
    bed, jobs = Bed(["split", "collaborative", "cached"], deaf=2), list[JobSpec]()
    train = taught(jobs, 8, 9)
    told = deploy_ways(bed, "owner1", 7, JobSpec(task="vignettes", seed=3), train)  # type: ignore[arg-type]
    assert [j.seed for j in jobs] == [1003, 2003] and list(told) == ["split", "collaborative", "cached"]
    assert told["split"]["at"] == 1 and told["collaborative"]["members"] == [8, 9]
    deployed = [said["variant"] for _, op, said in bed.told if op == "deploy"]
    assert deployed == ["split-upper", "split", "member1", "member2", "collaborative", "cached", "cached"]
    asked = [(name, said["task"].partition("/")[2]) for name, op, said in bed.told if op == "query"]
    assert [a for a in asked if a[1] == "cached"] == [(n, "cached") for n in ("asker2", "asker3", "asker4")]
    assert len([a for a in asked if a[1] == "split"]) == 3 + 2, "until it is answered"
    assert [e.data["way"] for e in bed.events if e.kind == "way.deployed"] == list(told)


def test_a_cascade_is_trained_learned_for_and_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.ways.LOOK_S", 0.0)
    bed, jobs = Bed(["switched"]), list[JobSpec]()
    train = taught(jobs, 8)
    told = deploy_ways(bed, "owner1", 7, JobSpec(task="vignettes", seed=3), train)["switched"]  # type: ignore[arg-type]
    assert [j.model for j in jobs] == ["cheap"]
    assert (told["cheap"], told["threshold"], told["temperature"]) == (8, 0.6, 1.2)
    done = [(op, said) for name, op, said in bed.told if name == "owner1"]
    assert done[0] == ("switch", {"object_id": 7, "cheap": 8})
    assert [said["variant"] for op, said in done if op == "deploy"] == ["large", "switched"]


def test_a_fusion_is_trained_learned_for_and_deployed_after_those_that_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.ways.LOOK_S", 0.0)
    bed, jobs = Bed(["multimodal"]), list[JobSpec]()
    train = taught(jobs, 8)
    told = deploy_ways(bed, "owner1", 7, JobSpec(task="vignettes", seed=3), train)["multimodal"]  # type: ignore[arg-type]
    assert [j.model for j in jobs] == ["vitals"] and (told["vitals"], told["accuracy"]) == (8, 0.8)
    done = [(op, said) for name, op, said in bed.told if name == "owner1"]
    assert done[0] == ("fuse", {"object_id": 7, "vitals": 8})
    assert [said["variant"] for op, said in done if op == "deploy"] == ["text", "vitals", "multimodal"]


def test_a_way_that_nobody_answers_in_the_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.ways.READY_S", 0.0)
    with pytest.raises(RunFailed, match="no model of it yet"):
        deploy_ways(Bed(["cached"], deaf=99), "owner1", 7, JobSpec(task="vignettes"), lambda jobs: [])  # type: ignore[arg-type]


def test_members_are_trained_by_jobs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([{"admitted": True, "object_id": 8}, {"admitted": True, "object_id": 9}])
    home: list[int] = []
    monkeypatch.setattr(run, "submit", lambda bed, job, owner: next(said))
    monkeypatch.setattr(run, "come_home", lambda bed, job, outcome: home.append(outcome.object_id))
    bed: Any = SimpleNamespace(events=[])
    assert run.train_too(bed, [JobSpec(task="t", seed=n) for n in (1, 2)]) == [8, 9] == home
    monkeypatch.setattr(run, "submit", lambda bed, job, owner: {"admitted": False, "reasons": ["too little data"]})
    with pytest.raises(RunFailed, match="not admitted: too little data"):
        run.train_too(bed, [JobSpec(task="t")])


# --- shown


def test_what_came_from_memory_is_counted_written_and_said(tmp_path: Path) -> None:
    rows = [Row(0.1 * n, 5.0, "answered", 7, 1, 1, int(n > 0)) for n in range(4)] + [Row(0.9, 9.0, "lost", 0, 1, -1)]
    asked.write(tmp_path / "rows.csv", rows)
    assert [r.cached for r in asked.read(tmp_path / "rows.csv")] == [0, 1, 1, 1, 0]
    older = tmp_path / "older.csv"
    older.write_text("at_s,latency_ms,outcome,model,tries,right\n0.1,5.0,answered,7,1,1\n")
    assert asked.read(older) == [Row(0.1, 5.0, "answered", 7, 1, 1)]
    found = summarise(rows, 0.0, {})
    assert found["cached"] == 3
    about = {"askers": ["a"], "pattern": "poisson", "rate_per_s": 5.0, "policy": "qirce", "stopped": False}
    assert "4 answered (75.0% of them from memory), 0 refused, 1 lost" in summary(found | about)


def test_askers_are_told_the_way_and_how_many_samples() -> None:
    spec = made(ways=["cached"], queries={"way": "cached", "samples": 8}).queries
    assert spec is not None
    told = msgspec.convert(asker_specs(spec, {"a": 1}, 0)["a"], LoadSpec)
    assert (told.way, told.samples) == ("cached", 8)


def test_progress_names_where_a_way_is() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=120))
    about = {"way": "split", "at": 1, "models": [{"variant": "split", "node": "m1", "label": 3}]}
    progress(Event(kind="way.deployed", source="main", t_unix_s=1.0, data=about))
    assert "split at m1" in out.getvalue()
