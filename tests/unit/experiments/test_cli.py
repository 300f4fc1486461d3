"""Bad input at the command line: one clear line on standard error, exit status 2, nothing made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli
from experiments.cluster import where
from experiments.commands import client, session
from experiments.scenarios import scenario
from experiments.scenarios.built_in import names
from experiments.testbed.folder import RunFolder

ROOT = Path(__file__).parents[3]
HEALTHCARE = (scenario.SCENARIO_FOLDER / "healthcare.yaml").read_text()
NOBODY = 65534
HEADER = "age,pressure,label\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a machine on which no network stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "RUN_BASE", tmp_path / "run-daitn")
    monkeypatch.setattr(client, "locked_run", lambda: None)
    return tmp_path


def daitn(*arguments: str) -> int:
    """Run the command line in this process; return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["daitn", *arguments])
        patch.setattr(cli.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run ``daitn``, see that it says no in the agreed manner, and return the line that it said."""
    status = daitn(*arguments)
    said = capsys.readouterr()
    return one_refusal(status, said.err)


def one_refusal(status: int, errors: str) -> str:
    assert status == 2, errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("error: ") and "Traceback" not in errors
    return errors


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (HEALTHCARE.replace("max_visits", "max_vists"), ["'max_vists'", "jobs", "did you mean 'max_visits'"]),
        (HEALTHCARE.replace("access_mbps", "acces_mbps"), ["'acces_mbps'", "network", "'access_mbps'"]),
        (HEALTHCARE.replace("rate_mbps: 50", "rate_mbps: fast"), ["rate_mbps", "float"]),
        (HEALTHCARE + "\x00", ["cannot be read as YAML"]),
        ("", ["the file is empty", "a mapping of keys is expected"]),
    ],
)
def test_a_wrong_scenario_is_named(here: Path, capsys, text: str, names: list[str]) -> None:
    (here / "mine.yaml").write_text(text)
    for command in ("run", "check", "up"):
        said = refused(capsys, command, "mine.yaml")
        assert "mine.yaml" in said
        assert [n for n in names if n not in said] == []
    assert made(here) == {"mine.yaml"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run", "none.yaml"], ["none.yaml", "does not exist"]),
        (["run", "helthcare"], ["'helthcare'", "did you mean 'healthcare'"]),
        (["run", "table", "--data", "none.csv"], ["none.csv", "does not exist"]),
        (["run", "heart"], ["heart", "--data"]),
        (["run", "healthcare", "--label", "y"], ["--label", "--data"]),
        (["run", "healthcare", "--method", "fast"], ["'fast'", "routed", "random"]),
        (["run", "--fast"], ["--fast", "--help"]),
        (["run", "--seed", "-1"], ["--seed", "0"]),
        (["run", "--seeds", "0"], ["--seeds", "1"]),
        (["run", "--page-port", "99999"], ["--page-port", "65535"]),
        (["fly"], ["fly", "--help"]),
        (["status"], ["no network is standing", "daitn up"]),
        (["submit"], ["no network is standing"]),
        (["query", "cardiology"], ["no network is standing"]),
        (["down"], ["no network is standing"]),
        (["report"], ["runs/latest", "daitn run"]),
        (["report", "elsewhere"], ["elsewhere", "finished run"]),
    ],
)
def test_a_wrong_word_is_named(here: Path, capsys, arguments: list[str], names: list[str]) -> None:
    said = refused(capsys, *arguments)
    assert [n for n in names if n not in said] == []
    assert made(here) == set()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"age,pressure\n1,2\n", ["label"]),
        (b"", ["empty"]),
        (HEADER.encode() + b"1,2,x\n" * 50 + b"3,", ["row 52", "cut"]),
        (HEADER.encode() + b"1,2,x\n" * 50 + b'"3,1,x\n', ["cut"]),
        (b"\x93\x00\xff" * 400, ["is no text"]),
        (HEADER.encode() + b"1,2,x\n", ["1 labelled rows"]),
    ],
)
def test_a_table_that_cannot_be_read_is_named(here: Path, capsys, content: bytes, names: list[str]) -> None:
    (here / "patients.csv").write_bytes(content)
    said = refused(capsys, "run", "table", "--data", "patients.csv")
    assert [n for n in ["patients.csv", *names] if n not in said] == []
    assert made(here) == {"patients.csv"}


def test_a_heart_directory_with_a_file_missing_is_named(here: Path, capsys) -> None:
    (here / "heart").mkdir()
    for hospital in ("cleveland", "hungarian", "va"):
        (here / "heart" / f"processed.{hospital}.data").write_text("63,1,1,145,233,1,2,150,0,2.3,3,0,6,0\n")
    assert "processed.switzerland.data" in refused(capsys, "run", "heart", "--data", "heart")
    assert made(here) == {"heart"}


def test_an_expert_group_that_the_data_do_not_have_is_named(here: Path, capsys) -> None:
    rows = "".join(f"{n % 90},{100 + n % 7},{'ill' if n % 2 else 'well'}\n" for n in range(120))
    (here / "patients.csv").write_text(HEADER + rows)
    text = (scenario.SCENARIO_FOLDER / "table.yaml").read_text()
    job = re.sub(r"(?m)^( *- \{task: \w+)", r"\1, expert_group: unicorns, expert_accuracy: 0.9", text)
    assert job != text
    (here / "mine.yaml").write_text(job)
    said = refused(capsys, "run", "mine.yaml", "--data", "patients.csv")
    assert "'unicorns'" in said and "ill" in said


def test_a_run_folder_in_use_is_left_alone(here: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("x")
    assert "not empty" in refused(capsys, "run", "healthcare", "--run-dir", "mine")
    assert made(here / "mine") == {"thesis.txt"}
    (here / "file").write_text("x")
    assert "cannot be made" in refused(capsys, "run", "healthcare", "--run-dir", "file/in")


@pytest.mark.parametrize("command", ["run", "up", "clean", "check"])
def test_not_root_is_one_line_that_says_sudo(here: Path, capsys, monkeypatch, command: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = refused(capsys, command)
    assert "root" in said and "sudo" in said
    assert made(here) == set()


@pytest.mark.parametrize("command", [["run"], ["up", "--detach"]])
def test_a_real_nobody_is_refused_too(tmp_path: Path, command: list[str]) -> None:
    if os.geteuid():
        pytest.skip("only root can become nobody")
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *command],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=18,
    )  # fmt: skip
    assert "sudo" in one_refusal(done.returncode, done.stderr)
    assert made(tmp_path) == set()


def test_a_bare_command_shows_the_help(here: Path, capsys) -> None:
    for arguments, status in ((["--help"], 0), ([], 2)):
        assert daitn(*arguments) == status
        said = capsys.readouterr()
        assert "run" in said.out and "clean" in said.out
        assert said.err == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("explain", "[default: the last]"),
        ("explain", "[default: the standing network's, else runs/latest]"),
        ("run", "[default: runs/<date>-<scenario>-s<seed>]"),
        ("run", ", ".join(names())),
        ("query", "[default: cardiology]"),
        ("load", "[default: 20.0]"),
    ],
)
def test_help_says_what_stands_in_square_brackets(capsys, monkeypatch, command: str, words: str) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    assert daitn(command, "--help") == 0
    assert words in capsys.readouterr().out


def test_a_sandbox_and_servers_exclude_each_other(here: Path, capsys) -> None:
    assert daitn("run", "--sandbox", "--servers", "a,b") == 2
    assert capsys.readouterr().err.startswith("error: --sandbox keeps a run apart")


def test_ctrl_c_is_one_line_and_130(here: Path, capsys, monkeypatch) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_scenario", pressed)
    assert daitn("run") == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_ctrl_c_names_the_folder_of_a_run_that_has_begun(here: Path, capsys, monkeypatch, recorded: bool) -> None:
    class Interrupted:
        def __init__(self, _: object, folder: RunFolder, **__: object) -> None:
            if recorded:
                folder.events.write_text("{}")

        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(where, "Bed", Interrupted)
    monkeypatch.setattr(session, "need_root", lambda: None)
    assert daitn("run", "fig3", "--run-dir", "mine") == 130
    said = capsys.readouterr()
    assert said.err == "stopped; everything is torn down\n"
    assert (f"recorded until then: {here / 'mine'}\n" in said.out) == recorded == (here / "mine").exists()


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_says_whether_the_targets_were_met(here: Path, monkeypatch, met: bool, status: int) -> None:
    monkeypatch.setattr(session, "run_scenario", lambda *_, **__: {"targets_met": met})
    assert daitn("run") == status


def test_the_built_in_scenarios_are_listed(capsys) -> None:
    assert daitn("scenarios") == 0
    said = capsys.readouterr().out
    assert [name for name in names() if name not in said] == []


def test_a_report_is_shown_again(here: Path, capsys) -> None:
    content = {
        "accuracy": {"broad": 0.91, "expert": 0.96}, "targets": {"broad": 0.8, "expert": 0.95}, "targets_met": True,
        "state": "finished", "reason": "", "expert_group": "cardiology", "pooled_accuracy": None, "seeds": [{}],
        "route": [{}, {}], "bytes_on_wire": 12_000_000, "port_counter_bytes": 12_100_000, "wall_s": 31.4,
        "peak_memory_mib": 1400.0, "query": {"answer": "angina", "expected": "angina", "latency_ms": 38.8},
    }  # fmt: skip
    (here / "report.json").write_text(json.dumps(content))
    assert daitn("report", ".") == 0
    said = capsys.readouterr().out
    assert [word for word in ("targets met", "0.910", "0.960", "angina", "38.8", "31.4") if word not in said] == []
    assert daitn("report", ".", "--json") == 0
    assert json.loads(capsys.readouterr().out) == content
    for reason, end in (("all 6 visits are used", "; all 6 visits are used"), ("", "")):
        (here / "report.json").write_text(json.dumps(content | {"targets_met": False, "reason": reason}))
        assert daitn("report", ".") == 0
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert any(line.endswith(f"finished: targets missed{end}") for line in lines)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"accuracy": 3}'])
def test_a_damaged_report_is_named(here: Path, capsys, text: str) -> None:
    (here / "report.json").write_text(text)
    assert "report.json is no whole report" in refused(capsys, "report", ".")


@pytest.mark.parametrize(("file", "names"), [("none/map.svg", "does not exist"), ("map.txt", ".svg, .png or .pdf")])
def test_a_drawing_that_cannot_be_written_is_refused_first(here: Path, capsys, file: str, names: str) -> None:
    assert names in refused(capsys, "map", "--svg", file)
