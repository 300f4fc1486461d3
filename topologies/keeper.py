"""A host's network namespace, kept by a process of few words; its shell starts when somebody types into it.

Mininet starts a bash with a terminal of its own in every host, and waits for its prompt twice: most of a large network
takes that long to start, for shells that nobody uses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from functools import cache
from typing import Any

from mininet.node import Host

from topologies.errors import RefusedError

KEEP = "read gone"  # until its standard input ends, which it does with us, however we end


@cache
def _life() -> tuple[int, int]:
    """Return the pipe at whose reading end all keepers wait; its other end is ours alone."""
    return os.pipe()


class KeptHost(Host):
    """A host whose ``pid`` is its keeper's; ``cmd``, ``sendCmd``, ``write`` and the like start its shell.

    Keepers start side by side: only who asks for ``pid`` waits until the namespace is there.  One is called
    ``mininet:NAME``, as Mininet's shells are.
    """

    keeper: Any = None
    _pid: int | None = None
    _typing = _settled = False

    @property
    def pid(self) -> Any:
        """The process in whose network namespace the host's interfaces are."""
        if self.keeper is not None and not self._settled:
            self._settled = True
            said = self.keeper.stdout.read()
            self.keeper.stdout.close()
            if not said.startswith(b"\x01"):
                raise RefusedError(f"terminal {self.name}: mnexec made no network namespace")
        return self._pid

    @pid.setter
    def pid(self, number: int | None) -> None:
        self._pid = number

    def startShell(self, mnopts: str | None = None) -> None:
        """Start the keeper, in namespaces of its own; not the shell."""
        words = ["mnexec", "-cdnp", "sh", "-c", f"exec >&-; {KEEP}", f"mininet:{self.name}"]
        self.keeper = self.shell = self._popen(
            words, stdin=_life()[0], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._pid, self.readbuf, self.waiting = self.keeper.pid, "", False

    def _type(self) -> None:
        """Have a shell, from now on."""
        if self._typing or self.keeper is None:
            return
        kept, self._typing = self.pid, True
        self.shell, self.inNamespace = None, False
        super().startShell(f"-cda{kept}")  # into the keeper's namespaces, not into new ones
        self.inNamespace, self.pid = True, kept

    def sendCmd(self, *words: Any, **options: Any) -> None:
        self._type()
        super().sendCmd(*words, **options)

    def write(self, data: str) -> None:
        self._type()
        super().write(data)

    def waitReadable(self, timeoutms: int | None = None) -> Any:
        self._type()
        return super().waitReadable(timeoutms)

    def hang_up(self) -> None:
        """Tell keeper and shell to end, without waiting (``terminate`` waits)."""
        for process in {self.keeper, self.shell} - {None}:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    def cleanup(self) -> None:
        if self._typing:
            super().cleanup()
        self.hang_up()
        if self.keeper is not None:
            self.keeper.wait()
        self.keeper = self.shell = None
