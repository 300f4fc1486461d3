"""Sweeps: the grid and what is no grid, cells that are finished or not, and the table that follows from them alone."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.commands.words import make_console
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import dump, known_keys, load
from experiments.sweeping import cells, cluster, command, runner
from experiments.sweeping.cells import Cell, came_to, cells_of
from experiments.sweeping.command import Sweep, sweep_grid
from experiments.sweeping.grid import Axis, laid_over, parse_axes, parse_seeds, points
from experiments.sweeping.runner import How

SETS = ["jobs.max_visits=4,8", "network.access_mbps=50,100.5"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("jobs.max_visits", "give key=value,value"), ("jobs.max_visits=", "give key=value,value"),
        ("=3", "give key=value,value"), ("jobs.max_visits=4,", None), ("jobs.max_visits=[4", "no YAML"),
        ("jobs.max_visits=~,4", "give key=value,value"), ("seed=1,2", "say --seeds"), ("jobs.max_visits=4,4", "twice"),
        ("security=true,1", None),
    ],
)  # fmt: skip
def test_a_word_that_is_no_axis_is_refused_with_the_fix(word: str, said: str | None) -> None:
    if said is None:
        assert parse_axes([word])[0].key == word.partition("=")[0]
        return
    with pytest.raises(ExperimentError, match=f"--set .*{said}"):
        parse_axes([word])


def test_values_have_the_types_that_they_would_have_in_a_scenario() -> None:
    (axis,) = parse_axes(["x=1,2.5,1e-3,true,text,[a, b],{c: 1}"])
    assert axis.values == (1, 2.5, 0.001, True, "text", ["a", "b"], {"c": 1})
    with pytest.raises(ExperimentError, match="is there already"):
        parse_axes(["x=1", "x=2"])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20, unique=True))
def test_seeds_are_those_that_were_said(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == seeds
    assert parse_seeds(f"{min(seeds)}-{max(seeds)}") == list(range(min(seeds), max(seeds) + 1))


@pytest.mark.parametrize("word", ["", "x", "5-1", "1,,2", "1,1", "1-3,2", "-1", "1.5", "0-99999999"])
def test_what_is_no_seeds_is_refused(word: str) -> None:
    with pytest.raises(ExperimentError, match="--seeds"):
        parse_seeds(word)


def test_a_grid_is_every_combination_once() -> None:
    axes = [Axis("a", (1, 2)), Axis("b", ("x", "y", "z"))]
    found = list(points(axes))
    assert len(found) == 6 and len({tuple(p.items()) for p in found}) == 6
    assert found[1] == {"a": 1, "b": "y"}
    assert list(points([])) == [{}]


def test_keys_are_set_in_all_items_of_a_list_or_in_one_and_checked_like_a_file() -> None:
    base = load("healthcare")
    two = msgspec.structs.replace(base, jobs=[base.jobs[0], base.jobs[0]])
    assert [j.max_visits for j in laid_over(two, {"jobs.max_visits": 3}).jobs] == [3, 3]
    assert laid_over(two, {"jobs.1.max_visits": 3}).jobs[1].max_visits == 3
    assert laid_over(two, {"jobs.1.max_visits": 3}).jobs[0] == base.jobs[0]
    assert laid_over(base, {"network.kas.1.data": 1}).network.kas[1].data == 1
    assert laid_over(base, {"engines.mtrce": "default"}).engines == {"mtrce": "default"}
    assert laid_over(base, {}) == base


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("jobs.max_visit", 3, "did you mean 'max_visits'"), ("max_visits", 3, "did you mean 'jobs.max_visits'"),
        ("job.max_visits", 3, "did you mean 'jobs.max_visits'"), ("acess_mbps", 3, "mean 'network.access_mbps'"),
        ("xyzzy", 3, "known keys are: name, network"), ("jobs.max_visits", "two", "Expected `int`, got `str`"),
        ("seed", -1, "seed"), ("jobs.7.max_visits", 3, "the list has 1"), ("jobs", 3, "jobs"),
        ("security.on", True, "no keys"), ("network.kas.1.compute.x", 1, "no keys"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_is_named_with_the_nearest_right_one(key: str, value: object, said: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        laid_over(load("healthcare"), {key: value})
    assert said in str(refused.value) and key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_known_keys_are_keys() -> None:
    assert {"seed", "jobs.max_visits", "network.access_mbps", "data.alpha"} <= set(known_keys())


def test_a_cell_with_another_scenario_is_another_cell() -> None:
    one, two = cells_of(load("healthcare"), parse_axes(["jobs.max_visits=4,8"]), [3])
    (again,) = cells_of(load("healthcare"), parse_axes(["jobs.max_visits=4"]), [3])
    assert (one.seed, one.scenario.seed, one.label) == (3, 3, "seed 3   jobs.max_visits=4")
    assert one.name == again.name != two.name
    (central,) = cells_of(load("healthcare"), parse_axes(["jobs.method=central"]), [0])
    assert central.scenario.network.data_may_move is True, "as `daitn compare` does it"


def reported(folder: Path, seed: int, *, method: str = "routed", broad: float | None = 0.9) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    one = {
        "seed": seed, "targets_met": bool(broad), "accuracy": {"broad": broad, "expert": None},
        "state": "finished" if broad else "rejected", "route": [{"data_node": "h1", "facility": "c1"}],
        "train_bytes": 4_000_000, "train_s": 2.0, "curve": [],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps({"method": method, "seeds": [one]}))


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs leave a report and say their cell's name; one named ``broken`` leaves none, twice."""
    said: list[str] = []
    monkeypatch.setattr(command, "need_root", lambda: None)

    def run_once(folder: Path, words: Sequence[str], attempt: int, how: How) -> str:
        said.append(folder.name)
        scenario = load(words[0])
        if scenario.jobs[0].max_visits == 9:
            return "error: h1 is on fire"
        reported(folder, scenario.seed, broad=None if scenario.jobs[0].max_visits == 5 else 0.9)
        return "done"

    monkeypatch.setattr(runner, "run_once", run_once)
    return said


def swept(out: Path, sets: Sequence[str] = SETS, seeds: str = "0-1") -> Sweep:
    return Sweep("healthcare", {}, sets, seeds, out)


def lines(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "sweep.csv").open()))


def test_what_is_finished_is_not_run_again_and_what_was_half_done_is(tmp_path: Path, ran: list[str]) -> None:
    first = swept(tmp_path)
    assert sweep_grid(first, jobs=1, cluster=None, console=make_console())
    assert sorted(ran) == sorted(cell.name for cell in first.cells) and len(ran) == 8
    half = first.cells[2].name
    whole = (tmp_path / f"{half}.json").read_bytes()
    (tmp_path / f"{half}.json").write_bytes(whole[: len(whole) // 2])  # another system's copy, cut short
    (tmp_path / f".{first.cells[3].name}.json.draft").write_text("{")  # killed while it wrote
    ran.clear()
    assert sweep_grid(swept(tmp_path), jobs=2, cluster=None, console=make_console())
    assert ran == [half]
    assert [line["cell"] for line in lines(tmp_path)] == [cell.name for cell in first.cells], "each once, in order"
    assert [line["jobs.max_visits"] for line in lines(tmp_path)] == ["4"] * 4 + ["8"] * 4
    assert lines(tmp_path)[0] | {"machine": ""} == {
        "seed": "0", "jobs.max_visits": "4", "network.access_mbps": "50", "state": "finished", "passed": "1",
        "broad": "0.9", "expert": "0.0", "visits": "1", "bytes": "4000000", "seconds": "2.0", "total_bytes": "4000000",
        "route": "h1@c1", "machine": "", "cell": first.cells[0].name,
    }  # fmt: skip
    page = (tmp_path / "sweep.html").read_text()
    assert "<svg" in page and "network.access_mbps" in page and "<script" not in page and "not finished" not in page


def test_a_larger_grid_in_the_same_folder_runs_what_is_new(tmp_path: Path, ran: list[str]) -> None:
    sweep_grid(swept(tmp_path, seeds="0"), jobs=1, cluster=None, console=make_console())
    ran.clear()
    sweep_grid(swept(tmp_path, [*SETS[:1], "network.access_mbps=50,75,100.5"], "0-1"), jobs=1, cluster=None,
               console=make_console())  # fmt: skip
    assert len(ran) == len(set(ran)) == 8 and len(lines(tmp_path)) == 12
    sweep_grid(swept(tmp_path, SETS[:1], "0"), jobs=1, cluster=None, console=make_console())
    assert len(lines(tmp_path)) == 2, "the table is of this grid"


def test_a_rejected_job_is_a_result_and_a_broken_run_is_told(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = swept(tmp_path, ["jobs.max_visits=4,5,9"], "7")
    assert not sweep_grid(sweep, jobs=1, cluster=None, console=make_console())
    assert len(ran) == 4, "what measured nothing is tried twice"
    assert [line["state"] for line in lines(tmp_path)] == ["finished", "rejected"]
    assert "h1 is on fire" in capsys.readouterr().out
    assert "max_visits=9: error: h1 is on fire" in (tmp_path / "sweep.html").read_text()
    ran.clear()
    sweep_grid(swept(tmp_path, ["jobs.max_visits=4,5,9"], "7"), jobs=1, cluster=None, console=make_console())
    assert set(ran) == {sweep.cells[2].name}


def test_two_sweeps_in_one_folder_do_not_meet(tmp_path: Path, ran: list[str]) -> None:
    with (tmp_path / command.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ExperimentError, match="another sweep works in"):
            sweep_grid(swept(tmp_path), jobs=1, cluster=None, console=make_console())
    (tmp_path / "file").touch()
    with pytest.raises(ExperimentError, match=r"file cannot be used: .*--out"):
        sweep_grid(swept(tmp_path / "file"), jobs=1, cluster=None, console=make_console())
    assert ran == []


def test_everything_is_checked_before_anything_is_started(tmp_path: Path) -> None:
    for sets, said in (
        (["jobs.max_visits=4,none"], "Expected `int`"),
        (["jobs.method=routed,rooted"], "no method is called 'rooted'"),
        ([f"jobs.max_visits={','.join(map(str, range(1, 1000)))}", "jobs.deadline_s=1,2,3,4,5,6"], "11988 cells"),
    ):
        with pytest.raises(ExperimentError, match=said):
            swept(tmp_path / "out", sets)
    assert not (tmp_path / "out").exists()


def test_a_report_of_another_run_is_none(tmp_path: Path) -> None:
    reported(tmp_path / "a", 3)
    assert came_to(tmp_path / "a", "routed", 3) is not None
    assert came_to(tmp_path / "a", "routed", 4) is None
    assert came_to(tmp_path / "a", "random", 3) is None
    assert came_to(tmp_path / "b", "routed", 3) is None
    (tmp_path / "a" / "report.json").write_text("{}")
    assert came_to(tmp_path / "a", "routed", 3) is None


def test_a_result_that_is_anothers_is_none(tmp_path: Path) -> None:
    (cell,) = cells_of(load("healthcare"), [], [0])
    other = Cell(1, {}, msgspec.structs.replace(cell.scenario, seed=1))
    reported(tmp_path / cell.name, 0)
    done = came_to(tmp_path / cell.name, "routed", 0)
    assert done is not None
    cells.write(tmp_path, done)
    assert cells.read(tmp_path, cell) == done
    (tmp_path / f"{other.name}.json").write_bytes((tmp_path / f"{cell.name}.json").read_bytes())
    assert cells.read(tmp_path, other) is None
    assert msgspec.yaml.decode(dump(cell.scenario))["seed"] == 0


def test_without_the_engine_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    for needs in (lambda: cluster.connect("tcp://127.0.0.1:1"), lambda: cluster.work_for("tcp://127.0.0.1:1", "")):
        with pytest.raises(ExperimentError, match=r"pip install distributed==\d"):
            needs()


def test_an_address_where_no_scheduler_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the optional package distributed is not installed")
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT_S", 0.5)
    with pytest.raises(ExperimentError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1"):
        cluster.connect("tcp://127.0.0.1:1")


@pytest.mark.parametrize("address", ["foo", "nowhere://x", "tcp://a", "tcp://a:b", "", "a:8786"])
def test_what_is_no_address_is_said_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "need_engine", lambda: None)
    for needs in (cluster.connect, lambda given: cluster.work_for(given, "")):
        with pytest.raises(ExperimentError, match="is no address of a scheduler"):
            needs(address)
