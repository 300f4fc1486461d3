"""What the screen shows: names as they are, plain signs where the output lacks ours, pipes that end early."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.commands.progress import Progress, say_rejected
from experiments.commands.words import shown
from packets.events import Event
from topologies.machine.shell import SBIN, find_tools

ROOT = Path(__file__).parents[3]
ODD = ["[/x] closed", "[deleted]", "[bold]b[/]", "back\\", "a[b]c", "100 %", ":smile:", "[link=x]y"]


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(f"x {shown(name)} y", highlight=False, emoji=False)
    assert name in console.export_text().replace("\u2060", "")


def test_a_name_with_line_ends_stays_one_line() -> None:
    assert shown("two\nlines\r\n") == "two\u23celines\u23ce"


@pytest.mark.parametrize("name", ODD)
def test_progress_and_rejection_show_odd_names(name: str) -> None:
    console = Console(file=io.StringIO(), width=200, record=True, emoji=False)
    progress = Progress(console)

    def tell(kind: str, **data: object) -> None:
        progress(Event(kind=kind, source="t", t_unix_s=0.0, data=data))

    tell("job.submitted", spec={"expert_group": name})
    tell("visit.verified", accepted=True, broad=0.5, expert=0.5, node="mpvu1")
    tell("query.answered", answer=name, expected=name, answered_by="m", latency_ms=1.0)
    tell("warning", text=f"group {name}")
    say_rejected({"reasons": [f"group {name}"], "nearest": {}}, console)
    text = console.export_text().replace("\u2060", "")
    assert text.count(name) == 4 and "no requirement would be admitted here" in text


def daitn(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.cli", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment
    )


def test_plain_signs_where_the_output_lacks_ours() -> None:
    said, errors = daitn("explain", "--help", PYTHONIOENCODING="ascii").communicate(timeout=60)
    assert b"Traceback" not in errors and said.decode("ascii")
    _, errors = daitn("check", "\u2713[x]", PYTHONIOENCODING="latin-1").communicate(timeout=60)
    assert b"no scenario is called '+[x]'" in errors


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = daitn("scenarios")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0


def test_a_piped_table_is_not_cut() -> None:
    said, _ = daitn("scenarios").communicate(timeout=60)
    assert "\u2026" not in said.decode() and max(map(len, said.decode().splitlines())) > 90


def test_roots_programs_are_found_without_sbin_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    find_tools()
    assert os.environ["PATH"].split(":") == ["/usr/bin", "/bin", *SBIN]
