"""All checks and all tests, the cheap ones first: ``make test``. Some of them: ``python -m tests network browser``.

Lint and types go on beside the unit and wire tests, which share two processes. Network and browser tests share two
sandboxes, each a machine of its own on this one; those marked ``alone`` follow by themselves. Ctrl-C ends all of it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from topologies.machine.cleanup import clean

ROOT = Path(__file__).parents[1]
CHECKS = {
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]],
    "types": [["-m", "mypy"]],
}
CHEAP, DEAR = ("unit", "wire"), ("network", "browser")
PROCESSES = ["-n", "2", "--dist", "loadfile"]
COVERAGE = ["--cov", "--cov-report="]  # the floor stands in pyproject.toml; the table: make coverage
INSIDE = ["-m", "topologies.sandbox", "--"]
SANDBOXES = ["--dist", "loadfile", "--no-loadscope-reorder", "-v"]
NO_TESTS, INTERRUPTED = 5, 130
FEW = 5  # more that fail are no matter of a neighbour
END_TIMEOUT_S = 60.0


class Lead:
    """Starts programs, each at the head of a group of its own (one signal reaches all of it), and sums them up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.living: list[subprocess.Popen[bytes]] = []
        self.sums: list[str] = []
        self.failed = False

    def start(self, words: list[str], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start a Python program."""
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, process_group=0,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None,
        )  # fmt: skip
        self.living.append(process)
        return process

    def note(self, title: str, statuses: list[int], start_s: float, said: str = "") -> None:
        """Take down how something ended."""
        well = not any(statuses)
        self.failed |= not well
        self.sums.append(f"{'ok    ' if well else 'FAILED'} {title:32} {time.monotonic() - start_s:6.0f} s  {said}")

    def test(self, title: str, words: list[str], again: Sequence[str] = ()) -> None:
        """Run pytest; its output is ours. No test at all is well where a mark chose them.

        ``again``: what to say for a second try of the few that failed, without the neighbour that may be why.
        """
        print(f"== {title}", flush=True)
        start_s, report = time.monotonic(), self.folder / f"{len(self.sums)}.xml"
        status = self.start(["-m", "pytest", f"--junitxml={report}", *words]).wait()
        well = report.exists() and (status == 0 or (status == NO_TESTS and "-m" in words))
        said, failed = results(report)
        if again and 0 < len(failed) <= FEW:
            print(f"== {title}: {len(failed)} failed, once more without a neighbour", flush=True)
            retry = ["-m", "pytest", "--last-failed", "--last-failed-no-failures=none", *again]
            well = self.start(retry).wait() == 0
            said += ", passed without a neighbour: mark them alone, or mend them" if well else ", and failed again"
        self.note(title, [int(not well)], start_s, "".join([said, *(f"\n{'':9}{name}" for name in failed)]))

    def end(self) -> None:
        """End what is still running as Ctrl-C does, and by force what does not heed it."""
        for number in (signal.SIGINT, signal.SIGKILL):
            running = [process for process in self.living if process.poll() is None]
            for process in running:
                os.killpg(process.pid, number)
            end_s = time.monotonic() + END_TIMEOUT_S
            for process in running:
                try:
                    process.wait(max(0.0, end_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    print(f"still running after {END_TIMEOUT_S:.0f} s: killed", file=sys.stderr)


class Beside:
    """A check that goes on beside the tests: it is heard when it has ended."""

    def __init__(self, lead: Lead, title: str) -> None:
        self.title, self._lead, self._start_s = title, lead, time.monotonic()
        self._output: IO[bytes] = (lead.folder / title).open("w+b")
        self._processes = [lead.start(words, self._output) for words in CHECKS[title]]

    def finish(self) -> None:
        """Wait for its end and say what it said."""
        statuses = [process.wait() for process in self._processes]
        self._output.seek(0)
        print(f"== {self.title}\n{self._output.read().decode(errors='replace')}", end="", flush=True)
        self._lead.note(self.title, statuses, self._start_s)


def results(report: Path) -> tuple[str, list[str]]:
    """Return in words what pytest wrote of its tests, and the names of those that failed."""
    if not report.exists():
        return "ended before it could report", []
    suite = next(ElementTree.parse(report).iter("testsuite"))
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    said = f"{count['tests'] - failed - count['skipped']} passed, {failed} failed, {count['skipped']} skipped"
    bad = [case for case in suite.iter("testcase") if {"failure", "error"} & {part.tag for part in case}]
    return said, [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def why_no_sandbox() -> str:
    """Return why this machine gives us no sandboxes, "" when it does."""
    done = subprocess.run([sys.executable, *INSIDE, "true"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


def lead_all(lead: Lead, chosen: list[str]) -> None:
    """Run what was chosen, in order."""
    checks = [Beside(lead, title) for title in CHECKS if title in chosen]
    if cheap := [f"tests/{tier}" for tier in CHEAP if tier in chosen]:
        measure = COVERAGE if len(cheap) == len(CHEAP) else []
        lead.test(f"{' and '.join(t for t in CHEAP if t in chosen)} tests{', coverage' if measure else ''}",
                  [*PROCESSES, *measure, *cheap])  # fmt: skip
    for check in checks:
        check.finish()
    if dear := [f"tests/{tier}" for tier in DEAR if tier in chosen]:
        if reason := why_no_sandbox():
            print(f"== no sandboxes here, so network tests run one after the other: {reason}")
            lead.test("network and browser tests", dear)
            return
        worker = f"--tx=2*popen//python={shlex.join([sys.executable, *INSIDE, sys.executable])}"
        lead.test("network tests, two sandboxes", [*SANDBOXES, worker, "-m", "not alone", *dear], ["-v", *dear])
        lead.test("network tests, alone", ["-v", "-m", "alone", *dear])


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run what was asked for; end with one line of each part."""
    parser = argparse.ArgumentParser(
        prog="python -m tests", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    everything = [*CHECKS, *CHEAP, *DEAR]
    parser.add_argument("part", nargs="*", help=f"some of: {', '.join(everything)} (default: all)")
    chosen = parser.parse_args().part or everything
    if unknown := set(chosen) - set(everything):
        parser.error(f"no part {sorted(unknown)[0]!r}; there are {', '.join(everything)}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="daitn-tests-") as folder:
        lead = Lead(Path(folder))
        try:
            lead_all(lead, chosen)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            print("\n== interrupted: everything is being taken down", flush=True)
            lead.end()
            if os.geteuid() == 0:
                clean()
            return INTERRUPTED
    print("== sum", *lead.sums, sep="\n")
    return 1 if lead.failed else 0


if __name__ == "__main__":
    sys.exit(main())
