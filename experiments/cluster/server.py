"""One server of a run, as the leader sees it: a process there, reached through ssh, that is asked and answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import msgspec

from experiments.cluster.orders import PROTOCOL, Ask, Greeting, Word
from experiments.errors import ExperimentError, RunFailed
from experiments.testbed.openflow_tls import HERE
from experiments.testbed.processes import PROJECT, last_words
from packets.events import Event
from topologies.cluster.ssh import SSH_FAILED, ssh_words

GREETING_S = 60.0
ENDS_WITHIN_S, CLEAN_S = 60.0, 40.0
KINDS = {"RunFailed": RunFailed, "ExperimentError": ExperimentError}


class ServerLost(ExperimentError):
    """A server cannot be reached, or is gone."""


class Server:
    """``ask`` may be called by several threads at once. ``hear`` gets the events of its part."""

    def __init__(self, name: str, log: Path, hear: Callable[[Event], None]) -> None:
        self.name, self.log = name, log
        self.greeting: Greeting | None = None
        self._hear = hear
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._pieces: dict[int, IO[bytes]] = {}
        self._lock, self._writing, self._greeted = threading.Lock(), threading.Lock(), threading.Event()
        self._lost = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process there; ``greet`` waits for its first word."""
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=PROJECT,
                env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}, start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=self._read, name=f"server-{self.name}", daemon=True).start()

    def _command(self, *arguments: str) -> list[str]:
        """Return what runs our module there, as root."""
        module = [sys.executable, "-m", "experiments.cluster.serve", *arguments]
        if self.name == HERE:
            return module
        words = shlex.join(["env", f"PYTHONPATH={PROJECT}", "OMP_NUM_THREADS=1", *module])
        there = f"cd {shlex.quote(str(PROJECT))} && if [ $(id -u) = 0 ]; then exec {words}; fi && exec sudo -n {words}"
        return [*ssh_words(self.name), there]

    def greet(self) -> Greeting:
        """Return its first word; ``ServerLost`` says why there is none."""
        if not self._greeted.wait(GREETING_S):
            self._lose(f"says nothing within {GREETING_S:.0f} s")
        self.check()
        assert self.greeting is not None
        return self.greeting

    def check(self) -> None:
        """Raise ``ServerLost`` when it is gone."""
        if self._lost:
            raise ServerLost(f"server {self.name} {self._lost}")

    def ask(self, op: str, timeout_s: float = 150.0, into: IO[bytes] | None = None, **args: Any) -> Any:
        """Have it do something; return its answer. ``into``: where the pieces of a file that it sends are written."""
        typed = {name: args.pop(name) for name in ("order", "happening") if name in args}
        number, answer = next(self._numbers), Future[Any]()
        with self._lock:
            self.check()
            self._waiting[number] = answer
            if into is not None:
                self._pieces[number] = into
        self._send(Ask(op=op, id=number, args=args, **typed))
        try:
            word = answer.result(timeout_s)
        except TimeoutError:
            raise RunFailed(f"server {self.name} did not answer {op!r} within {timeout_s:.0f} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
                self._pieces.pop(number, None)
        if word.error:
            raise KINDS.get(word.kind, RunFailed)(f"server {self.name}: {word.error}")
        return word.result

    def beat(self) -> None:
        """Say that the leader lives."""
        if not self._lost:
            self._send(Ask(op="beat"))

    def end(self) -> None:
        """Let it take all down, and wait until it has."""
        if self._process is None:
            return
        self._lost = self._lost or "was told to end"
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._writing:
            self._process.stdin.close()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def clean(self, run_id: str) -> None:
        """Remove what a process of ours that was killed there left, if the machine can still be reached."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                self._command("--clean", run_id), stdin=subprocess.DEVNULL, capture_output=True, cwd=PROJECT,
                timeout=CLEAN_S, check=False,
            )  # fmt: skip

    def _send(self, ask: Ask) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            with self._writing:
                self._process.stdin.write(msgspec.json.encode(ask) + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: closed already
            self._lose(self._why())

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        decoder = msgspec.json.Decoder(Word)
        try:
            for line in self._process.stdout:
                self._take(decoder.decode(line))
        except msgspec.DecodeError as error:
            self._lose(f"said what cannot be read: {error}")
            self._process.kill()
        self._lose(self._why())

    def _take(self, word: Word) -> None:
        if word.event is not None:
            self._hear(word.event)
        elif word.greeting is not None:
            self.greeting = word.greeting
            self._greeted.set()
        elif word.id == 0:
            self._lose(f"cannot take part: {word.error}")
        elif word.piece:
            with self._lock:
                file = self._pieces.get(word.id)
            if file is not None:
                file.write(word.piece)
        else:
            with self._lock:
                waiting = self._waiting.pop(word.id, None)
            if waiting is not None:
                waiting.set_result(word)

    def _why(self) -> str:
        """Say why the connection is over, by the end of the process here and by its last words."""
        assert self._process is not None
        try:
            status = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return "does not listen any more"
        said = last_words(self.log)
        if status == SSH_FAILED:
            return f"cannot be reached by ssh: {said}" if self.greeting is None else f"is gone in mid-run (ssh: {said})"
        if self.greeting is None:
            return f"does not start its part (status {status}): {said}; DA-ITN must lie in {PROJECT} there, provisioned"
        return f"ended with status {status}: {said} (log: {self.log})"

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost = self._lost or why
            waiting, self._waiting = list(self._waiting.values()), {}
        self._greeted.set()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(ServerLost(f"server {self.name} {self._lost}"))


def check_alike(servers: dict[str, Greeting], here: str) -> None:
    """Check that all servers can be parts of one network; ``ExperimentError`` names the first that cannot.

    ``here``: what this checkout's own code is.
    """
    first, one = next(iter(servers.items()))
    for name, other in servers.items():
        if other.protocol != PROTOCOL or other.sources != here:
            raise ExperimentError(
                f"server {name} has another version of this project than the machine you are at ({other.sources}, not "
                f"{here}): copy this checkout to {PROJECT} there"
            )
        for what in ("python", "torch", "open_vswitch"):
            if getattr(other, what) != getattr(one, what):
                raise ExperimentError(
                    f"server {name} has {what} {getattr(other, what)}, server {first} {getattr(one, what)}: "
                    "run scripts/provision.sh on both"
                )
        if other.netem != one.netem:
            lacks = name if one.netem else first
            raise ExperimentError(f"server {lacks} has no netem in its kernel, others have: use like kernels")
