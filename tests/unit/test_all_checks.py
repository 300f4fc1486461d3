"""``make test``: what fails is named at the end and fails the whole, and an interruption ends what it started."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.__main__ import Beside, Lead
from tests.helpers import wait_until


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    return Lead(tmp_path)


def words_for(tmp_path: Path, *lines: str) -> list[str]:
    """Write a module of tests; return the words that run it."""
    (tmp_path / "test_it.py").write_text("\n".join(lines) + "\n")
    return ["-q", "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]


def test_a_failed_test_is_named_and_fails_the_whole(tmp_path: Path, lead: Lead) -> None:
    words = words_for(tmp_path, "def test_good(): pass", "def test_bad(): assert 0")
    lead.test("tests", [*words, "-n", "2"])
    assert lead.failed
    (said,) = lead.sums
    assert said.startswith("FAILED tests") and "1 passed, 1 failed, 0 skipped" in said and "test_it::test_bad" in said


@pytest.mark.parametrize("for_good", [False, True])
def test_what_fails_beside_a_neighbour_is_tried_again_and_told(tmp_path: Path, lead: Lead, for_good: bool) -> None:
    once = "pathlib.Path(__file__).with_suffix('.tried')"
    lines = ["import pathlib", f"def test_shy():\n    tried = {once}.exists()\n    {once}.touch()\n    assert tried"]
    words = words_for(tmp_path, *lines, *(["def test_bad(): assert 0"] if for_good else []))
    lead.test("tests", words, words)
    assert lead.failed is for_good
    assert ("failed again" if for_good else "passed without a neighbour") in lead.sums[0]
    assert "test_it::test_shy" in lead.sums[0]


def test_what_passes_is_well_and_so_is_a_mark_that_nothing_bears(tmp_path: Path, lead: Lead) -> None:
    words = words_for(tmp_path, "def test_good(): pass")
    lead.test("tests", words)
    lead.test("alone", [*words, "-m", "not_there"])
    assert not lead.failed and all(said.startswith("ok") for said in lead.sums)
    lead.test("nothing", [*words, "-k", "not_there"])
    assert lead.failed, "no test where some are expected is no success"


def test_a_run_that_breaks_off_fails_and_says_so(tmp_path: Path, lead: Lead) -> None:
    lead.test("tests", words_for(tmp_path, "import os", "os._exit(0)"))
    assert lead.failed and "ended before it could report" in lead.sums[0]


def test_checks_beside_the_tests_are_heard_in_the_end(
    lead: Lead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.__main__.CHECKS", {"lint": [["-c", "print('all well')"], ["-c", "raise SystemExit(3)"]]})
    check = Beside(lead, "lint")
    assert capsys.readouterr().out == ""
    check.finish()
    assert "all well" in capsys.readouterr().out
    assert lead.failed and lead.sums[0].startswith("FAILED lint")


def test_an_interruption_ends_all_that_was_started(tmp_path: Path, lead: Lead) -> None:
    there = tmp_path / "there"
    inner = f"import os, pathlib, time; pathlib.Path({str(there)!r}).write_text(str(os.getpid())); time.sleep(60)"
    outer = lead.start(["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"])
    wait_until(lambda: there.exists() and there.read_text(), 10.0, "the grandchild")
    start_s = time.monotonic()
    lead.end()
    assert outer.poll() is not None and time.monotonic() - start_s < 10.0
    wait_until(lambda: not alive(int(there.read_text())), 5.0, "the grandchild's end")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
