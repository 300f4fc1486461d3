"""The route benchmark: what counts as a pass, a miss and neither, and the object on its last line."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import common, route
from experiments.scenarios.scenario import dump, load

BUDGET = load("healthcare").jobs[0].max_visits


def report(seed: int, method: str, **changes: Any) -> dict[str, Any]:
    accuracy = {"broad": 0.9, "expert": 0.96}
    base = {
        "seed": seed,
        "method": method,
        "accuracy": accuracy,
        "targets_met": True,
        "route": [visit()] * 9,
        "wall_s": 80.0,
    }
    return base | changes


def visit(broad: float = 0.9, expert: float = 0.96, accepted: bool = True) -> dict[str, Any]:
    return {"accuracy": {"broad": broad, "expert": expert}, "accepted": accepted}


class FakeDaitn:
    """Stands in for the child process: writes what a run would have written, or fails as told."""

    def __init__(self, broken: int = 0, status: int = 0, routes: dict[str, list[Any]] | None = None) -> None:
        self.routes = routes or {}
        self.calls: list[tuple[int, str]] = []
        self.broken = broken
        self.status = status

    def __call__(self, command: Sequence[str], log: Path, timeout_s: float) -> int:
        words = list(command)
        seed, method = int(words[words.index("--seed") + 1]), words[words.index("--method") + 1]
        self.calls.append((seed, method))
        folder = Path(words[words.index("--run-dir") + 1])
        folder.mkdir(parents=True)
        log.write_text("starting\n\nerror: Open vSwitch is not running\n")
        if self.status == 2:
            return 2
        if self.broken:
            self.broken -= 1
            return 1
        passed = method == "routed" or seed == 0
        stops = self.routes.get(method, [visit()] if passed else [visit(0.1)])
        (folder / "report.json").write_text(json.dumps(report(seed, method, targets_met=passed, route=stops)))
        (folder / "scenario.yaml").write_bytes(_scenario(seed))
        (folder / "manifest.json").write_text(json.dumps({"git": common.commit().removesuffix("+")}))
        return 0 if passed else 1


def _scenario(seed: int) -> bytes:
    return dump(msgspec.structs.replace(load("healthcare"), seed=seed))


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fake: FakeDaitn, *arguments: str) -> Any:
    """Run the benchmark with a fake child; return (status, object of the last line, lines)."""
    monkeypatch.setattr(route, "run_child", fake)
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = route.main(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    lines = capsys.readouterr().out.splitlines()
    return status, json.loads(lines[-1]), lines


def test_shares_of_seeds_in_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeDaitn()
    status, last, lines = run(monkeypatch, capsys, fake, "--seeds", "0-3", "--out", str(tmp_path / "b"))
    assert status == 0
    assert (last["routed_pass"], last["random_pass"], last["seeds"]) == (1.0, 0.25, 4)
    assert last["max_visits"] == BUDGET and last["reused"] == 0 and last["errors"] == []
    assert {"cpu", "cores", "kernel", "commit"} <= set(last["machine"]) and last["date"]
    assert fake.calls == [(s, m) for s in range(4) for m in ("routed", "random")]
    assert sum("misses" in line for line in lines) == 3


def test_a_run_that_measured_nothing_is_tried_again_and_never_counted_as_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--seeds", "0", "--out", str(tmp_path / "b"))
    status, last, _ = run(monkeypatch, capsys, FakeDaitn(broken=1), *arguments)
    assert (status, last["routed_pass"], last["errors"]) == (0, 1.0, [])
    status, last, _ = run(monkeypatch, capsys, FakeDaitn(broken=2), *arguments)
    assert (status, last["routed_pass"], last["random_pass"]) == (1, None, None)  # nothing to hold it against
    assert last["random_pass_full_budget"] == 1.0
    assert "Open vSwitch is not running" in last["errors"][0]


def test_a_machine_that_is_not_ready_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeDaitn(status=2)
    status, last, _ = run(monkeypatch, capsys, fake, "--out", str(tmp_path / "b"))
    assert status == 2 and len(fake.calls) == 1 and last["routed_pass"] is None


def test_kept_results_are_marked_and_only_of_the_same_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    run(monkeypatch, capsys, FakeDaitn(), "--seeds", "0", "--out", str(out))
    again = FakeDaitn()
    _, last, lines = run(monkeypatch, capsys, again, "--seeds", "0,1", "--out", str(out), "--resume")
    assert again.calls == [(1, "routed"), (1, "random")]
    assert last["reused"] == 2 and sum("kept from an earlier run" in line for line in lines) == 2
    other = out / "seed-000-routed" / "scenario.yaml"
    other.write_text(other.read_text().replace(f"max_visits: {BUDGET}", f"max_visits: {BUDGET + 2}"))
    stale = FakeDaitn()
    _, last, _ = run(monkeypatch, capsys, stale, "--seeds", "0", "--out", str(out), "--resume")
    assert stale.calls == [(0, "routed")] and last["reused"] == 1
    not_asked_for = FakeDaitn()
    run(monkeypatch, capsys, not_asked_for, "--seeds", "0", "--out", str(out))
    assert len(not_asked_for.calls) == 2


@pytest.mark.parametrize(
    "changes",
    [{"seed": 7}, {"method": "fixed"}, {"accuracy": {"broad": None, "expert": None}}, {"route": None}, {"wall_s": "?"}],
)
def test_a_report_that_measured_nothing_or_of_another_run_is_no_result(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(1, "routed") | changes))
    assert route.read_report(path, 1, "routed", reused=False) is None
    path.write_text(json.dumps(report(1, "routed")))
    assert route.read_report(path, 1, "routed", reused=False) is not None


GOOD, BAD = visit(), visit(0.9, 0.5)


@pytest.mark.parametrize(
    ("stops", "passed", "met"),
    [
        ([BAD, GOOD], True, True),  # no more visits than the planned route: the run's own verdict counts
        ([BAD, GOOD], False, False),
        ([BAD, BAD, BAD, GOOD], True, False),  # met them, but later
        ([BAD, BAD, GOOD, GOOD], True, True),  # measured as met, then went on to confirm
        ([BAD, GOOD, BAD, GOOD], True, False),  # had them, and lost one again
        ([BAD, GOOD, visit(0.1, 0.1, accepted=False), GOOD], True, True),  # rolled back: the kept state counts
        ([visit(accepted=False)] * 4, True, False),
    ],
)
def test_with_the_same_number_of_visits(tmp_path: Path, stops: list[dict[str, Any]], passed: bool, met: bool) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(1, "random") | {"route": stops, "targets_met": passed}))
    result = route.read_report(path, 1, "random", reused=False)
    assert result is not None
    assert route.met_within(result, 3, broad=0.8, expert=0.95) is met


def test_random_is_held_to_the_visits_that_the_planned_route_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeDaitn(routes={"routed": [BAD, GOOD], "random": [BAD, BAD, GOOD]})
    status, last, _ = run(monkeypatch, capsys, fake, "--seeds", "0", "--out", str(tmp_path / "b"))
    assert (status, last["routed_pass"], last["random_pass"], last["random_pass_full_budget"]) == (0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(("text", "seeds"), [("0-2", [0, 1, 2]), ("3", [3]), ("1,4,7", [1, 4, 7])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert route.seed_list(text) == seeds


@pytest.mark.parametrize("arguments", [["--seeds", "5-1"], ["--seeds", "x"], ["--resume"]])
def test_wrong_arguments_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        route.parse(arguments)
    assert ended.value.code == 2


def test_a_child_is_asked_to_clean_up_and_is_gone_after_its_time_limit(tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    code = (
        "import signal, sys, pathlib, threading\n"
        f"signal.signal(signal.SIGINT, lambda *_: (pathlib.Path({str(mark)!r}).write_text('yes'), sys.exit(130)))\n"
        "print('ready', flush=True); threading.Event().wait(60)"
    )
    log = tmp_path / "child.log"
    with pytest.raises(common.ChildTimeout, match="no end after"):
        common.run_child([sys.executable, "-c", code], log, timeout_s=1.0)
    assert mark.read_text() == "yes" and common.last_words(log) == "ready"


def test_exit_status_and_words_of_a_child(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    assert common.run_child([*common.python("json.tool"), "/nonexistent"], log, timeout_s=20.0) != 0
    assert "nonexistent" in common.last_words(log)
    assert common.last_words(tmp_path / "none") == "no log"
