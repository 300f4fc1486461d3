"""``daitn`` as a person uses it: start it, follow its events, interrupt it; and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packets.events import Event, decode_event
from tests.helpers import wait_until
from topologies.machine.ledger import RUN_BASE
from topologies.machine.sysctls import WANTED, path_of

ROOT = Path(__file__).parents[2]
ENDS_WITHIN_S = 30.0
NOT_OURS = ("lo", "docker", "virbr", "vnet", "veth-")  # of virtual machines that live beside us
WIRES = {"vde_plug", "wirefilter"}
RUN_TAG = re.compile(rb"\0DAITN_RUN=[0-9a-f]+-[0-9a-f]{6}\0")  # of a `daitn` run; tests of other parts use other words


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments.cli", *arguments]


@dataclass
class Said:
    """A command that has ended."""

    status: int
    out: str
    err: str


def daitn(
    *arguments: str, cwd: Path, timeout_s: float = 90.0, stdin: str = "", env: dict[str, str] | None = None
) -> Said:
    """Run a command to its end."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment() | (env or {}), input=stdin,
        capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def refused(said: Said, *names: str) -> None:
    """Assert that a command said no in the agreed manner: status 2, one line on standard error, naming these."""
    assert said.status == 2, said
    assert len(said.err.splitlines()) == 1 and said.err.startswith("error: "), said
    assert [name for name in names if name not in said.err] == [], said.err


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


class Running:
    """A ``daitn run`` on its way."""

    def __init__(self, folder: Path, *arguments: str, scenario: str = "healthcare") -> None:
        self.result = folder / "result"
        words = command("run", scenario, "--run-dir", str(self.result), "--no-page", *arguments)
        self.process = subprocess.Popen(
            words, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def events(self) -> list[Event]:
        """Return what its log holds by now (the last line may be half written)."""
        log = self.result / "events.jsonl"
        text = log.read_bytes() if log.exists() else b""
        return [decode_event(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    def wait_for(self, kind: str, timeout_s: float = 90.0, **match: Any) -> Event:
        """Wait until it has said this; fails at once when it ends before."""

        def look() -> Event | None:
            assert self.process.poll() is None, self.ended(0)
            matching = (e for e in self.events() if e.kind == kind and e.data.items() >= match.items())
            return next(matching, None)

        found = wait_until(look, timeout_s, f"{kind} {match}")
        assert found is not None
        return found

    def ended(self, timeout_s: float = ENDS_WITHIN_S) -> Said:
        out, err = self.process.communicate(timeout=timeout_s)
        return Said(self.process.returncode, out, err)

    def end(self, number: int) -> Said:
        self.process.send_signal(number)
        return self.ended()


@contextmanager
def running(folder: Path, *arguments: str, scenario: str = "healthcare") -> Iterator[Running]:
    """Start a run; whatever the test does with it, nothing of it is left."""
    run = Running(folder, *arguments, scenario=scenario)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            try:
                run.process.communicate(timeout=ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.communicate()
                daitn("clean", cwd=folder)


# --- what there is on this machine -----------------------------------------------------------------------------------


def standing() -> set[str]:
    """Return all that a run makes and has to remove: names, processes, settings, as words for a message."""
    found = {f"namespace {line.split()[0]}" for line in tool("ip", "netns", "list").splitlines() if line}
    found |= {f"bridge {name}" for name in tool("ovs-vsctl", "list-br").split()}
    names = [name for name in os.listdir("/sys/class/net") if not name.startswith(NOT_OURS)]
    found |= {f"interface {name}" for name in names}
    queues = re.findall(r"qdisc (\S+) \S+ dev (\S+)", tool("tc", "qdisc", "show"))
    found |= {f"qdisc {kind} on {name}" for kind, name in queues if name in names}
    found |= {f"file {path}" for path in RUN_BASE.rglob("*") if path.name != "lock"}
    found |= {f"group {path}" for path in Path("/sys/fs/cgroup").rglob("*daitn*")}
    found |= {f"setting {name}={value}" for name, value in settings().items()}
    return found | set(_processes())


def settings() -> dict[str, str]:
    """Return the kernel settings that a run raises, as they are; in a sandbox there are fewer."""
    return {name: path_of(name).read_text().strip() for name in WANTED if path_of(name).exists()}


def _processes() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            tagged = RUN_TAG.search(b"\0" + (entry / "environ").read_bytes() + b"\0")
            name = (entry / "comm").read_text().strip()
        except OSError:
            continue  # ended meanwhile, or a kernel thread
        if tagged or name in WIRES:
            yield f"process {name} {entry.name}"


def tool(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout


def assert_as_before(before: set[str], timeout_s: float = 2.0) -> None:
    """Assert that nothing was left and nothing was taken."""
    end = time.monotonic() + timeout_s
    while (now := standing()) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert now == before, f"left behind: {sorted(now - before)}; taken away: {sorted(before - now)}"


@contextmanager
def foreign(folder: Path) -> Iterator[Callable[[], None]]:
    """Make what other people have on a machine: bridge, namespace with a process, veth pair; yields a check of it."""
    tool("ovs-vsctl", "add-br", "br-foreign", "--", "set", "bridge", "br-foreign", "datapath_type=netdev")
    tool("ip", "netns", "add", "foreign")
    tool("ip", "link", "add", "fo-here", "type", "veth", "peer", "name", "fo-there", "netns", "foreign")
    tool("tc", "qdisc", "add", "dev", "fo-here", "root", "tbf", "rate", "9mbit", "burst", "9kb", "latency", "9ms")
    inside = subprocess.Popen(["ip", "netns", "exec", "foreign", "sleep", "1000"], cwd=folder)

    def check() -> None:
        assert "br-foreign" in tool("ovs-vsctl", "list-br").split()
        assert "fo-there" in tool("ip", "-n", "foreign", "-br", "link")
        assert "rate 9Mbit" in tool("tc", "qdisc", "show", "dev", "fo-here")
        assert inside.poll() is None

    try:
        check()
        yield check
    finally:
        inside.kill()
        inside.wait()
        tool("ip", "netns", "del", "foreign")
        tool("ovs-vsctl", "del-br", "br-foreign")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
