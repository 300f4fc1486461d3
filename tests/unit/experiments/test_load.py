"""A load of queries: what each asker is told, how seconds and results add up, what is refused, how it is shown."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments import load as loads
from experiments.commands.asking.commands import need_of
from experiments.commands.asking.driving import checked
from experiments.commands.asking.told import say_load, second_in_words
from experiments.errors import ExperimentError, RunFailed, ScenarioError
from experiments.load import RunningLoad, asker_specs, merged, percentile
from experiments.report import load_plots
from experiments.report.happened import happened
from experiments.report.load import right, summarise
from experiments.scenarios import scenario
from experiments.scenarios.queries import QueriesSpec, check_policy
from hosts.inference import asked
from hosts.inference.asked import Row
from hosts.inference.load import STEPS, LoadSpec, buckets
from packets.events import Event
from packets.messages import Need
from packets.queries import query_label

KAS = {"asker1": 1, "asker3n1": 3, "asker3n2": 3}
ROWS = [
    Row(0.1, 10.0, "answered", 0x11, 1, 1),
    Row(0.2, 900.0, "answered", 0x22, 1, 0),
    Row(1.5, 12.0, "answered", 0x11, 2, 1),
    Row(1.6, 4.0, "refused", 0, 1, -1),
    Row(2.6, 10_000.0, "lost", 0, 3, -1),
]
NODES = {0x11: ("mdfp1", "vignettes"), 0x22: ("mdfp3", "vignettes")}


class Bed:
    """Askers that answer at once, and the events they send. ``refuses``: those that say no to a query."""

    def __init__(self, folder: Path, refuses: tuple[str, ...] = (), dies: str = "") -> None:
        hosts = [SimpleNamespace(name=n, role="query_owner", kas=k, address=f"10.{k}.0.1") for n, k in KAS.items()]
        self.plan, self.folder, self.refuses, self.dies = SimpleNamespace(hosts=hosts), folder, refuses, dies
        self.scenario = SimpleNamespace(name="mine", data=SimpleNamespace(name="vignettes"))
        self.events: list[Event] = []
        self.hub = SimpleNamespace(emit=self.emit)
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.lock = threading.Lock()

    def emit(self, kind: str, /, **data: Any) -> None:
        self.events.append(Event(kind=kind, source="test", t_unix_s=time.time(), data=data))

    def terminals(self, role: str) -> list[str]:
        return list(KAS) if role == "query_owner" else []

    def check(self) -> None:
        pass

    def wait_event(self, kind: str, timeout_s: float, mark: int = 0, **match: Any) -> Event:
        found = [e for e in self.events[mark:] if e.kind == kind and match.items() <= e.data.items()]
        if not found:
            raise RunFailed(f"no {kind}")
        return found[0]

    def tell(self, name: str, op: str, timeout_s: float = 1.0, **arguments: Any) -> dict[str, Any]:
        with self.lock:
            self.told.append((name, op, arguments))
            return {"ok": True, **getattr(self, f"_{op}")(name, **arguments)}

    def _query(self, name: str, **_: Any) -> dict[str, Any]:
        self.emit("query.sent", id=f"{name}-1", node=name, task="vignettes")
        if name in self.refuses:
            raise RunFailed(f"{name} refused 'query': no deployed model of task vignettes")
        return {"id": f"{name}-1", "answer": "x"}

    def _load(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        msgspec.convert(spec, LoadSpec)
        if name == self.dies:
            raise RunFailed(f"{name} did not take 'load'")
        self.emit("load.second", node=name, under_way=0, latency_buckets=buckets(ROWS), **asked.summary(ROWS))
        self.emit("load.over", node=name, **asked.summary(ROWS))
        return {"load": 0}

    def _load_stop(self, name: str, load: int) -> dict[str, Any]:
        return {"over": True}

    def _load_result(self, name: str, load: int, wait_s: float) -> dict[str, Any]:
        file = self.folder / f"{name}.csv"
        asked.write(file, ROWS)
        return {"over": True, "file": str(file), "reasons": {"the queue is full": 1}, "known_age_ms": 20.0}


def result(
    tmp_path: Path, spec: QueriesSpec | None = None, **about: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    bed, told = Bed(tmp_path, **about), list[dict[str, Any]]()
    load = RunningLoad(bed, spec or QueriesSpec(seconds=0.1))  # type: ignore[arg-type]
    load.follow(told.append)
    return load.result(tmp_path / "all.csv"), told


def test_each_asker_is_told_its_place_and_all_the_same_pattern() -> None:
    specs = asker_specs(QueriesSpec(rate_per_s=30, pattern="hot_spot"), KAS, 7)
    places = {name: (s["asker"], s["place"], s["askers_here"]) for name, s in specs.items()}
    assert places == {"asker1": (0, 0, 1), "asker3n1": (1, 1, 2), "asker3n2": (2, 1, 2)}
    assert {(s["askers"], s["places"], s["seed"], s["pattern"]["rate_per_s"]) for s in specs.values()} == {
        (3, 2, 7, 30.0)
    }
    for spec in specs.values():
        msgspec.convert(spec, LoadSpec)


def test_all_begin_together_and_their_rows_come_together(tmp_path: Path) -> None:
    found, told = result(tmp_path)
    assert (found["asked"], found["answered"], found["refused"], found["lost"]) == (15, 9, 3, 3)
    assert len(asked.read(tmp_path / "all.csv")) == 15
    assert sum(second["asked"] for second in told) == 15 and told[0]["p95_ms"] > told[0]["p50_ms"] > 9
    assert found["reasons"] == {"the queue is full": 3} and found["silent"] == {} and found["known_age_ms"] == 20.0
    json.dumps(found)


def test_the_askers_have_one_start_ahead(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    RunningLoad(bed, QueriesSpec(seconds=0.1))  # type: ignore[arg-type]
    starts = {a["spec"]["start_unix_s"] for _, op, a in bed.told if op == "load"}
    assert len(starts) == 1 and starts.pop() > time.time()


def test_where_nobody_answers_the_reason_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no deployed model of task vignettes"):
        result(tmp_path, refuses=tuple(KAS))


def test_a_kas_that_is_not_served_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    found, _ = result(tmp_path, refuses=("asker1",))
    assert "K-AS 1: asker1 refused 'query': no deployed model of task vignettes" in found["reasons"]


def test_an_asker_that_is_gone_is_left_out(tmp_path: Path) -> None:
    found, _ = result(tmp_path, dies="asker3n1")
    assert list(found["silent"]) == ["asker3n1"] and found["asked"] == 10


def test_a_load_can_be_ended_early(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    load = RunningLoad(bed, QueriesSpec(seconds=600))  # type: ignore[arg-type]
    load.stop()
    load.follow()
    assert load.result(tmp_path / "all.csv")["stopped"] and sum(op == "load_stop" for _, op, _ in bed.told) == 3


def test_a_query_is_told_of_which_class_it_is_and_why_it_was_refused(tmp_path: Path) -> None:
    bed = Bed(tmp_path, refuses=("asker1",))
    with pytest.raises(RunFailed):
        loads.put(bed, "asker1", "", need={"broad_accuracy": 0.9})  # type: ignore[arg-type]
    told = bed.wait_event("query.classed", 0).data
    assert told["label"] == query_label("vignettes", Need(broad_accuracy=0.9)) and "no deployed" in told["refused"]


def test_percentiles_lie_within_their_bucket() -> None:
    wide = 10 ** (1 / STEPS)
    for share, bound in ((0.5, 10.0), (0.9, 20.0), (0.95, 50.0)):
        found = percentile({10.0: 5, 20.0: 4, 50.0: 1}, share)
        assert found is not None and bound / wide - 0.01 <= found <= bound
    assert percentile({}, 0.5) is None
    both = merged([{"asked": 2, "latency_buckets": {"10": 2}}, {"asked": 3, "latency_buckets": {"10": 1, "1e+04": 2}}])
    assert both["asked"] == 5 and both["p50_ms"] < 10 and both["p95_ms"] > 8000


def test_percentiles_of_many_are_near_those_of_the_rows() -> None:
    rng = random.Random(3)
    rows = [Row(0.0, rng.gammavariate(3, 8), "answered", 1, 1, 1) for _ in range(4000)]
    told = merged([{"latency_buckets": buckets(rows)}])
    true = asked.summary(rows)
    assert told["p50_ms"] == pytest.approx(true["p50_ms"], rel=0.04)
    assert told["p95_ms"] == pytest.approx(true["p95_ms"], rel=0.04)


def test_buckets_hold_each_answer_under_its_bound() -> None:
    held = buckets(ROWS)
    assert sum(held.values()) == 3
    assert all(sum(n for le, n in held.items() if float(le) * 1.001 >= ms) for ms in (10.0, 12.0, 900.0))


def test_figures_are_by_model_and_by_second() -> None:
    found = summarise(ROWS, 50.0, NODES)
    one, other = found["models"]
    assert (one["name"], one["share"], one["accuracy"], one["deadline_hits"]) == ("mdfp1", 0.66667, 1.0, 1.0)
    assert (other["name"], other["accuracy"], other["deadline_hits"]) == ("mdfp3", 0.0, 0.0)
    assert found["deadline_hits"] == 0.4 and found["step_s"] == 1
    steps = found["per_step"]
    assert steps["asked"][:3] == [2, 2, 1] and steps["refused"][1] == 1 and steps["lost"][2] == 1
    assert steps["answered_by"][str(0x22)][:2] == [0, 1]  # when it was answered, not when it was due
    assert len(steps["asked"]) == 13 and sum(steps["asked"]) == 5


def test_models_that_served_at_one_place_are_numbered_in_their_order() -> None:
    rows = [Row(1.0, 1.0, "answered", label, 1, 1) for label in (7, 7, 9, 5, 0, 6)]
    nodes = {5: ("mdfp1", "t"), 8: ("mdfp1", "t"), 9: ("mdfp2", "t"), 7: ("mdfp1", "t")}
    named = {m["label"]: m["name"] for m in summarise(rows, 0.0, nodes)["models"]}
    assert named == {5: "mdfp1", 7: "mdfp1 (2)", 9: "mdfp2", 0: "not told", 6: "label 0x6"}


def test_a_long_load_has_steps_of_several_seconds() -> None:
    found = summarise([Row(float(s), 1.0, "answered", 1, 1, 1) for s in range(1500)], 0.0, {})
    assert found["step_s"] == 3 and max(found["per_step"]["asked"]) == 1.0 and found["models"][0]["name"] == "label 0x1"


def test_right_answers_are_told_over_time_in_steps_that_can_be_judged() -> None:
    rows = [Row(s / 20, 1.0, "answered", 1, 1, int(s < 200)) for s in range(400)]
    found = right([*rows, Row(3.0, 1.0, "refused", 0, 1, -1), Row(3.0, 1.0, "answered", 1, 1, -1)])
    assert found == {"step_s": 8, "share": [1.0, 0.25, 0.0]}
    assert right([]) == {"step_s": 1, "share": []}


def test_what_happened_to_the_models_is_told_in_words_and_drawn() -> None:
    told = [
        ("timed.event", {"do": "drift", "node": "cardiology", "at_s": 4}),
        ("model.drifted", {"broad": 0.78, "was": 0.86, "samples": 480, "reasons": ["broad accuracy has fallen"]}),
        ("model.recalibrating", {"node": "owner1", "object_id": 0x12}),
        ("model.redeployed", {"labels": [1, 2], "broad": 0.85, "seconds": 1.5}),
        ("model.deployed", {}),
    ]
    events = [Event(kind=k, source="x", t_unix_s=100.0 + n, data=d) for n, (k, d) in enumerate(told)]
    found = happened(events, 98.0)
    assert [(h["at_s"], h["what"]) for h in found] == [
        (2.0, "event"), (3.0, "fallen"), (4.0, "trained on"), (5.0, "deployed anew"),
    ]  # fmt: skip
    assert "0.780 on 480 late samples (0.860" in found[1]["text"] and "in 2 places" in found[3]["text"]
    rows = [Row(s / 20, 1.0, "answered", 1, 1, 1) for s in range(400)]
    drawn = load_plots.right(summarise(rows, 0.0, {}) | {"happened": found})
    assert all(h["what"] in drawn for h in found)
    assert load_plots.right(summarise([], 0.0, {}) | {"happened": found}) == ""


def test_of_nothing_there_is_nothing(tmp_path: Path) -> None:
    found = summarise([], 0.0, {})
    assert found["models"] == [] and found["spread_ms"] == [] and found["per_step"]["asked"] == []
    whole = msgspec.to_builtins(QueriesSpec()) | found
    assert load_plots.rates(whole).startswith("<svg") and load_plots.spread(whole).startswith("<svg")


def test_it_reads_as_a_table_and_is_drawn(tmp_path: Path) -> None:
    found, told = result(tmp_path)
    console = Console(file=io.StringIO(), width=160)
    say_load(found | {"models": summarise(ROWS, 0.0, NODES)["models"]}, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("mdfp1", "0x11", "66.7%", "3 refused, 3 lost", "3 times: the queue is full", "all.csv"):
        assert words in text, words
    assert "asked    15" in second_in_words(told[0])
    whole = found | {"need": {"deadline_ms": 50}}
    assert "refused or lost" in load_plots.rates(whole) and "latency, ms" in load_plots.spread(whole)


# --- what a person may say


def test_needs_are_read_from_options() -> None:
    assert need_of(0.8, "cardiology=0.9", 50, True) == {
        "broad_accuracy": 0.8, "expert_group": "cardiology", "expert_accuracy": 0.9, "deadline_ms": 50, "local": True,
    }  # fmt: skip
    for wrong in ("cardiology", "=0.9", "cardiology=9", "cardiology=nan", "cardiology=x"):
        with pytest.raises(ExperimentError, match="GROUP=ACCURACY"):
            need_of(0.0, wrong, 0, False)


def test_a_wrong_policy_or_pattern_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"'neares'; did you mean 'nearest'. there are: nearest, random.*group"):
        check_policy("neares")
    with pytest.raises(ExperimentError, match="did you mean 'bursts'"):
        checked({"pattern": "burst", "policy": "qirce"})
    with pytest.raises(ExperimentError, match="there is no file"):
        check_policy(f"{tmp_path}/none.py:Mine")
    check_policy("group")


def raw(**more: Any) -> dict[str, Any]:
    content = msgspec.yaml.decode((scenario.SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    return dict(content) | more


def test_a_scenario_may_have_a_load_and_replicas() -> None:
    need = {"broad_accuracy": 0.8, "deadline_ms": 100}
    found = scenario.from_raw(raw(replicas=2, queries={"pattern": "diurnal", "rate_per_s": 5, "need": need}), "mine")
    assert found.replicas == 2 and found.queries is not None and found.queries.need.deadline_ms == 100


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"queries": {"rates_per_s": 1}}, "'rates_per_s' at queries; did you mean 'rate_per_s'"),
        ({"queries": {"need": {"deadline": 1}}}, "'deadline' at queries.need; did you mean 'deadline_ms'"),
        ({"queries": {"policy": "qirc"}}, "queries: no policy is called 'qirc'; did you mean 'qirce'"),
        ({"queries": {"pattern": "waves"}}, "queries.pattern"),
        ({"queries": {"rate_per_s": 0}}, "queries.rate_per_s"),
        ({"queries": {"policy": "none.py:Mine"}}, "there is no file"),
        ({"replicas": 3}, "replicas: 3 are wanted, the network has 2 MDFP"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_a_load_that_cannot_be_is_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario.from_raw(raw(**more), "mine.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["query_owner", "mdfp"])
def test_a_load_needs_who_asks_and_who_answers(role: str) -> None:
    content = raw(queries={})
    for kas in content["network"]["kas"].values():
        kas.pop(role, None)
    with pytest.raises(ScenarioError, match=f"queries: no K-AS has a {role}"):
        scenario.from_raw(content, "mine.yaml")
