"""A sandbox, from outside: start it, act in it, end it.

It holds nothing of this machine but a CPU group and its share in the raised kernel settings, both in a ledger like
any run's, so that ``clean`` finds them; all else ends with its first process, that one with who started it.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from topologies.errors import NameTakenError, RefusedError
from topologies.machine import cgroups, ledger, sending, shell, sysctls
from topologies.machine.preflight import check_root
from topologies.machine.waiting import wait_until
from topologies.venv import ROOT

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
OWN = ("--net", "--mount", "--pid", "--ipc")


def new_name() -> str:
    """Return a name that no other sandbox has."""
    return f"box-{uuid.uuid4().hex[:8]}"


def environment() -> dict[str, str]:
    """Return our environment, in which Python finds this project from any folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def sandboxed(command: Sequence[str], *, orphaned: bool = False) -> list[str]:
    """Return the words that run a command in a sandbox of its own.

    Unless ``orphaned``, it ends in good order when the thread that starts it dies.
    """
    bound = [] if orphaned else ["setpriv", "--pdeathsig", "TERM"]
    return [*bound, sys.executable, "-m", "topologies.sandbox", "--", *command]


class Sandbox:
    """A machine of its own on this one; a context manager, and safe to stop twice.

    ``command``: what its first process leads, and ends with; none: it stands until ``stop``. ``switch``: whether it has
    an Open vSwitch. ``pid``: its first process, as counted here. It dies with the thread that started it.
    """

    def __init__(
        self, name: str = "", command: Sequence[str] = (), *, switch: bool = True, base: Path = ledger.RUN_BASE
    ) -> None:
        self.name = name or new_name()
        self.pid = 0
        self._command, self._switch, self._base = list(command), switch, base
        self._ledger: ledger.Ledger | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make it; returns when its mounts and its switch stand. On failure nothing is left."""
        check_root()
        shell.find_tools()
        there = ledger.read(self._base / self.name)
        if there is not None and there.main.alive():
            raise NameTakenError(f"sandbox {self.name} stands already (process {there.main.pid}): take another name")
        self._ledger = ledger.Ledger(self._base / self.name, self.name)
        try:
            sysctls.raise_limits(self._ledger)
            with sysctls.raised(self._ledger, sending.SETTINGS if self._switch else {}):
                self._start(cgroups.create_top(self.name))
        except BaseException:
            self.stop()
            raise

    def _start(self, group: Path | None) -> None:
        told, tell = os.pipe()
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", *OWN, "--fork", "--kill-child=KILL"]
        words += [sys.executable, "-m", "topologies.sandbox.first", "--name", self.name, "--ready", str(tell)]
        words += [] if group is None else ["--group", str(group)]
        words += [] if self._switch else ["--no-switch"]
        os.set_inheritable(tell, True)
        try:
            self._process = subprocess.Popen(
                [*words, "--", *self._command], env=environment(), close_fds=False,
                start_new_session=True,  # the terminal's Ctrl-C comes once: by us
            )  # fmt: skip
        finally:
            os.close(tell)
        try:
            ready = select.select([told], [], [], START_TIMEOUT_S)[0]
            word = os.read(told, select.PIPE_BUF).decode() if ready else ""
        finally:
            os.close(told)
        if not word.isdigit():
            reason = word or (f"not ready after {START_TIMEOUT_S:.0f} s" if not ready else "its first process ended")
            raise RefusedError(f"sandbox {self.name} does not stand: {reason}")
        self.pid = int(word)

    def words(self, *command: str) -> list[str]:
        """Return the words that run a command inside, in the present folder; it ends with the sandbox."""
        return ["nsenter", "--target", str(self.pid), *OWN, "--", "env", "-C", os.getcwd(), *command]

    def must(self, *command: str) -> str:
        """Run a command inside that has to succeed; return its standard output."""
        return shell.must(*self.words(*command))

    def send(self, number: int) -> None:
        """Send its command a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its command's end; return its status (128 + signal where one ended it)."""
        assert self._process is not None
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def stop(self) -> None:
        """End all that lives inside, at once; give back what it held of this machine."""
        if self._process is not None:
            first = ledger.ProcessRecord(self.pid, ledger.start_time(self.pid) or -1)
            self._process.kill()  # its first process follows; the kernel ends all others before that one is gone
            self._process.wait(END_TIMEOUT_S)
            wait_until(lambda: not first.alive(), END_TIMEOUT_S)
            self._process = None
        wait_until(lambda: cgroups.remove_groups(self.name), END_TIMEOUT_S)
        if self._ledger is not None:
            sysctls.give_back(self._ledger.path)
            with contextlib.suppress(OSError):
                self._ledger.path.parent.rmdir()
            self._ledger = None


def join(a: Sandbox, a_address: str, b: Sandbox, b_address: str, name: str = "cable") -> None:
    """Join two sandboxes by a pair of interfaces of this name, one in each, with these addresses (``10.99.0.1/24``)."""
    shell.must(*f"ip link add {name} netns {a.pid} type veth peer name {name} netns {b.pid}".split())
    for box, address in ((a, a_address), (b, b_address)):
        box.must("ip", "address", "add", address, "dev", name)
        box.must("ip", "link", "set", name, "up")
