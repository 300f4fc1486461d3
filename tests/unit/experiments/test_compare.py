"""Comparisons: what is read from runs, how it is summed up, and that curves follow the counters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from experiments.commands.resolving import Said, words_of
from experiments.comparing.command import make_plan
from experiments.comparing.page import columns, rows, write_page
from experiments.comparing.runs import Comparison, Plan, summarise
from experiments.errors import ExperimentError
from experiments.report.curve import Counters, curve
from experiments.run import allow
from experiments.scenarios.scenario import dump, load
from experiments.sweeping import runner
from experiments.sweeping.runner import How
from packets.events import Event


def load_event(t: float, link: str, size: int, kas: int = 1) -> Event:
    data = {"kas": kas, "link": link, "tx_bytes": size, "rx_bytes": 0}
    return Event(kind="link.load", source="dcc1", t_unix_s=t, data=data)


def verdict(t: float, broad: float, accepted: bool) -> Event:
    data = {"object_id": 7, "broad": broad, "expert": broad / 2, "accepted": accepted}
    return Event(kind="visit.verified", source="mpvu2", t_unix_s=t, data=data)


def test_bytes_between_two_reports_are_interpolated_and_borders_count_once() -> None:
    events = [
        load_event(10, "a-b", 100),
        load_event(12, "a-b", 300),
        load_event(10, "g1-g2", 0),
        load_event(12, "g1-g2", 10),
    ]
    events += [load_event(10, "g1-g2", 5000, kas=2)]
    assert Counters(events).at(11) == 200 + 5
    assert Counters(events).at(99) == 310


def test_a_curve_follows_the_kept_state() -> None:
    events = [
        Event(kind="job.submitted", source="dcc1", t_unix_s=10, data={"object_id": 7}),
        load_event(10, "a-b", 0), verdict(11, 0.5, True), verdict(12, 0.3, False), load_event(12, "a-b", 1000),
    ]  # fmt: skip
    points = curve(events, 7)
    assert [(p["seconds"], p["bytes"], p["broad"]) for p in points] == [(1, 500, 0.5), (2, 1000, 0.5)]
    assert curve(events, 8) == []


def written(folder: Path, method: str, seed: int, size: int, met: bool, broad: float = 0.9) -> None:
    folder.mkdir(parents=True)
    one = {
        "seed": seed, "targets_met": met, "accuracy": {"broad": broad, "expert": 0.96}, "route": [1, 2],
        "train_bytes": size, "train_s": 20.0,
        "curve": [{"seconds": 5.0, "bytes": size // 2, "broad": 0.6, "expert": 0.5}],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps({"method": method, "seeds": [one]}))
    (folder / "scenario.yaml").write_bytes(dump(msgspec.structs.replace(load("healthcare"), seed=seed)))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    plan = Plan("healthcare", ("routed", "federated"), (0, 1), tmp_path, resume=True)
    found = Comparison(plan, lambda _: None)
    for seed in (0, 1):
        written(found.folder("routed", seed), "routed", seed, 10_000_000 * (seed + 1), True)
        written(found.folder("federated", seed), "federated", seed, 100_000_000, seed == 0)
    return found


def test_a_comparison_sums_up_its_runs_and_writes_its_page(comparison: Comparison, tmp_path: Path) -> None:
    comparison.run()
    summary = comparison.summary()
    assert summary["methods"]["routed"]["pass_share"] == 1.0
    assert summary["methods"]["federated"]["pass_share"] == 0.5
    assert summary["methods"]["routed"]["bytes"] == 15_000_000
    assert summary["methods"]["routed"]["bytes_sd"] > 0
    assert rows(summary, "cardiology")[1][-2] == "6.67"
    assert len(rows(summary, None)[0]) == len(columns(summary, None)) == len(columns(summary, "cardiology")) - 1
    assert summary["equal_bytes"] == 15_000_000
    assert summary["methods"]["routed"]["broad_at_equal_bytes"] == 0.6
    assert summary["methods"]["federated"]["broad_at_equal_bytes"] == 0.0
    write_page(summary, tmp_path / "c.html", targets={"broad": 0.8, "expert": 0.95}, expert_group="cardiology")
    page = (tmp_path / "c.html").read_text()
    assert page.count("<svg") == 2 and "cardiology accuracy" in page and "<script" not in page


def test_a_run_with_other_settings_is_not_kept(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[tuple[str, int]] = []

    def run_once(folder: Path, words: Sequence[str], attempt: int, how: How) -> str:
        again.append((words[words.index("--method") + 1], int(words[words.index("--seed") + 1])))
        return f"attempt {attempt}"

    monkeypatch.setattr(runner, "run_once", run_once)
    other = load("healthcare")
    job = msgspec.structs.replace(other.jobs[0], max_visits=7)
    other = msgspec.structs.replace(other, jobs=[job], seed=1)
    (comparison.folder("routed", 1) / "scenario.yaml").write_bytes(dump(other))
    (comparison.folder("federated", 0) / "scenario.yaml").write_text("no scenario")
    comparison.run()
    assert list(dict.fromkeys(again)) == [("federated", 0), ("routed", 1)]


def test_a_run_of_another_method_or_without_a_measurement_is_none(comparison: Comparison) -> None:
    written(comparison.folder("gossip", 0), "routed", 0, 1, True)
    assert comparison.read("gossip", 0) is None
    (comparison.folder("routed", 0) / "report.json").write_text("{}")
    assert comparison.read("routed", 0) is None
    assert summarise([])["pass_share"] is None


def test_an_unknown_method_is_refused_before_anything_runs() -> None:
    with pytest.raises(ExperimentError, match="there are: routed"):
        make_plan("healthcare", "routed,fedavg", [0])
    with pytest.raises(ExperimentError, match="--out"):
        make_plan("healthcare", "all", [0], resume=True)


def test_only_central_pooling_lets_all_data_move() -> None:
    scenario = load("healthcare")
    assert allow(scenario, "federated") == scenario
    assert allow(scenario, "central").network.data_may_move is True


def test_a_comparison_runs_on_a_network_and_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    said: Said = {"topo": "examples/network.py:TwoGateways", "data": None, "columns": ["a", "b"]}
    plan = make_plan("healthcare", "routed", [0], said={"topo": said["topo"]}, out=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert Comparison(plan, print).folder("routed", 0).parent == tmp_path
    assert words_of(plan.said) == ["--topo", f"{Path(__file__).parents[3]}/examples/network.py:TwoGateways"]
    assert words_of(said)[:4] == ["--column", "a", "--column", "b"]
    with pytest.raises(ExperimentError, match=r"no file .*none.py"):
        make_plan("healthcare", "routed", [0], said={"topo": "none.py:Net"})
