"""The scripts of examples/ against a standing network, as a person runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packets.batch import REASONS
from tests.network.daitn import ROOT, Said, assert_as_before, daitn, environment, standing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A standing network with a deployed model; the folder has asker4's keys."""
    before, where = standing(), tmp_path_factory.mktemp("examples")
    up = ("up", "healthcare", "--seed", "1", "--no-page", "--run-dir", str(where / "run"), "--detach")
    try:
        said = daitn(*up, cwd=where)
        assert said.status == 0, said
        said = daitn("submit", "--broad", "0.5", "--max-visits", "6", "--seed", "1", cwd=where, timeout_s=200)
        assert said.status == 0 and "targets met" in said.out, said
        assert daitn("keys", "asker4", "--out", str(where / "asker4.key"), cwd=where).status == 0
        yield where
    finally:
        daitn("down", cwd=where)
    assert_as_before(before)


def example(name: str, *arguments: str, cwd: Path) -> Said:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=90)
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_query_is_answered_and_its_copy_refused(folder: Path) -> None:
    ask = ("ask.py", "--on", "asker4", "--group", "cardiology")
    said = example(*ask, "--key", "asker4.key", "--save", "query.pcap", cwd=folder)
    assert said.status == 0, said
    assert re.search(r"\(expected: .+\), confidence [01]\.\d\d, by mdfp\d at 10\.\d\.", said.out), said
    assert "###[ AI ]###" in said.out and "= QUERY" in said.out and "= RESPONSE" in said.out
    again = example("replay.py", "--on", "asker4", "query.pcap", cwd=folder)
    assert again.status == 0 and "1 of them whole, 1 sent again" in again.out, again
    assert re.search(r"1 x refused by mdfp\d: replayed", again.out), again


def test_a_query_without_signature_gets_no_answer(folder: Path) -> None:
    said = example("ask.py", "--on", "asker4", "--sample", "1,2,3", "--timeout", "2", cwd=folder)
    assert said.status == 1 and "no answer within 2 s" in said.err and "--key" in said.err, said


def test_forged_packets_are_refused(folder: Path) -> None:
    said = example("forge.py", "--on", "asker4", "--target", "mdfp1", cwd=folder)
    assert said.status == 0, said
    head, *lines = said.out.splitlines()
    assert head.split() == ["forgery", "the", "codec", "says", "mdfp1", "reported"]
    columns = [re.split(r"\s{2,}", line) for line in lines]
    for what, codec, reported in columns:
        assert reported.startswith("mdfp1: "), what
        if codec != "well-formed":
            assert reported.startswith(f"mdfp1: {codec} "), what
    assert {codec for _, codec, _ in columns} == set(REASONS[1:]) - {"option"} | {"well-formed"}
    words = " ".join(reported.split()[1] for _, codec, reported in columns if codec == "well-formed")
    assert words == "unsigned unsigned holder unknown-transfer"


@pytest.mark.parametrize("name", ["ask.py", "replay.py", "forge.py"])
def test_help_and_clear_errors(folder: Path, name: str) -> None:
    said = example(name, "--help", cwd=folder)
    assert said.status == 0 and "--on HOST" in said.out
    more = ("x.pcap",) if name == "replay.py" else ()
    said = example(name, "--on", "nobody", *more, cwd=folder)
    assert said.status == 1 and len(said.err.splitlines()) == 1 and "no terminal 'nobody' stands here" in said.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("ask.py", "--on", "asker4", "--group", "cardiolgy"), "no group 'cardiolgy'"),
        (("ask.py", "--on", "asker4", "--sample", "1", "--key", "none.key"), "none.key"),
        (("replay.py", "--on", "asker4", "none.pcap"), "none.pcap cannot be read"),
        (("forge.py", "--on", "asker4", "--target", "mdfp9"), "no terminal 'mdfp9'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, command: tuple[str, ...], words: str) -> None:
    said = example(*command, cwd=folder)
    assert said.status == 1 and len(said.err.splitlines()) == 1 and words in said.err, said
