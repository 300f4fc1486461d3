"""Zygote: imports PyTorch once and forks one agent per Mininet host into that host's network namespace.

It speaks JSON lines on ``DIR/zygote.sock``::

    {"op":"ping"}  ->  {"ok":true,"pid":1,"agents":{"h11":2},"samples_per_s":9000.0}
    {"op":"fork","host":{HostPlan},"netns_pid":1234,"cgroup":path or null,"keys":text or null}  ->  {"ok":true,"pid":2}
    {"op":"stop"}  ->  {"ok":true}, then all agents end and it does

One thread, one loop: forking a process that has threads would copy their locks.  No agent outlives the zygote.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hosts.control import MAX_LINE_BYTES, Command, answer_line, listen
from hosts.errors import BadCommand, BadRuntimeDir, HostError
from hosts.process.namespaces import open_network_namespace
from packets.errors import DaitnError
from packets.events import Emitter
from topologies.plan import HostPlan

if TYPE_CHECKING:
    from hosts.agent import Agent
    from hosts.process.birth import Birth

ENDING_S = 0.5
GRACE_S = 0.6
BIRTH_TIMEOUT_S = 10.0


class ForkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The ``fork`` command. ``keys``: the terminal's own identity (None: an open network)."""

    op: str
    host: HostPlan
    netns_pid: int
    cgroup: str | None = None
    keys: str | None = None


class Zygote:
    """The loop: takes commands, forks, reaps. ``make_agent`` runs in the child and does not return to the loop."""

    def __init__(self, runtime_dir: Path, emit: Emitter, birth: Birth) -> None:
        self.agents: dict[int, str] = {}
        self._emit, self._birth = emit, birth
        self._stopping = False
        self._path = runtime_dir / "zygote.sock"
        self._server = listen(self._path)
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[socket.socket, bytes] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until ``stop``, SIGTERM or SIGINT; then end all agents within a second."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        try:
            while not self._stopping:
                for key, _ in self._selector.select():
                    self._on_ready(key.fileobj)
        finally:
            self._end()

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _on_ready(self, ready: object) -> None:
        if ready is self._server:
            client, _ = self._server.accept()
            self._buffers[client] = b""
            self._selector.register(client, selectors.EVENT_READ)
        elif isinstance(ready, socket.socket):
            self._on_client(ready)
        else:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._reap()

    # --- commands ---

    def _on_client(self, client: socket.socket) -> None:
        try:
            data = client.recv(1 << 16)
            self._buffers[client] += data
            *lines, self._buffers[client] = self._buffers[client].split(b"\n")
            if not data or len(self._buffers[client]) > MAX_LINE_BYTES:
                raise ConnectionError
            for line in lines:
                client.sendall(answer_line(line, self._obey))
        except OSError:
            self._selector.unregister(client)
            del self._buffers[client]
            client.close()

    def _obey(self, command: Command) -> Command:
        if command["op"] == "ping":
            agents = {name: pid for pid, name in self.agents.items()}
            return {"pid": os.getpid(), "agents": agents, "samples_per_s": self._birth.samples_per_s}
        if command["op"] == "stop":
            self._stopping = True
            return {}
        if command["op"] != "fork":
            raise BadCommand(f"no op {command['op']!r}; the zygote has: fork, ping, stop")
        try:
            return {"pid": self.fork(msgspec.convert(command, ForkOrder))}
        except msgspec.ValidationError as error:
            raise BadCommand(f"fork: {error}") from None

    # --- births ---

    def fork(self, order: ForkOrder) -> int:
        """Fork one agent, return its process id once it is in its namespace; ``HostError`` when it cannot get there."""
        end = time.monotonic() + ENDING_S  # who asks may have seen an agent end before its last thread has
        while order.host.name in self.agents.values() and time.monotonic() < end:
            self._reap()
            time.sleep(0.005)
        if order.host.name in self.agents.values():
            raise BadCommand(f"fork: agent {order.host.name} is running already")
        namespace = open_network_namespace(order.netns_pid)
        news_read, news_write = os.pipe2(os.O_CLOEXEC)
        try:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._be_child(order, namespace, news_write, parent)
        finally:
            os.close(namespace)
            os.close(news_write)
        self.agents[pid] = order.host.name
        with os.fdopen(news_read, "rb") as news:
            problem = _hear(news.fileno())
        if problem:
            del self.agents[pid]
            os.waitpid(pid, 0)
            raise HostError(f"agent {order.host.name}: {problem}")
        return pid

    def _be_child(self, order: ForkOrder, namespace: int, news: int, parent: int) -> None:
        """In the child: let go of the zygote's sockets and signals, then be the agent; never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for handle in (self._server, *self._buffers):
                handle.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._emit.close()
            from hosts.agent import serve  # imported long ago, by the birth

            serve(self._settle(order, namespace, news, parent))
            status = 0
        except BaseException as error:
            sys.stderr.write(f"agent {order.host.name}: {error!r}\n")
        finally:
            os._exit(status)

    def _settle(self, order: ForkOrder, namespace: int, news: int, parent: int) -> Agent:
        """Become the agent and tell the zygote: ``ok``, or why not."""
        word = b"ended at birth"
        try:
            agent = self._birth.settle(order, namespace, parent)
            word = b"ok"
            return agent
        except BaseException as error:
            word = (" ".join(str(error).split()) or repr(error)).encode()[:400]
            raise
        finally:
            os.write(news, word)
            os.close(news)

    # --- deaths ---

    def _reap(self) -> None:
        while self.agents:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self.agents.pop(pid, None)
            if name is not None:
                self._emit("agent.gone", name=name, status=os.waitstatus_to_exitcode(status), expected=self._stopping)

    def _end(self) -> None:
        """Ask all agents to end, then make them."""
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while self.agents and time.monotonic() < deadline:
            self._reap()
            self._selector.select(0.02)
        self._signal_all(signal.SIGKILL)
        while self.agents:
            pid, _ = os.waitpid(-1, 0)
            name = self.agents.pop(pid, None)
            self._emit("agent.gone", name=name, status=-signal.SIGKILL, expected=True)
        self._server.close()
        self._path.unlink(missing_ok=True)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _hear(descriptor: int) -> str:
    """Wait for a newborn's word: "" when it is in place, else its problem."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        if not selector.select(BIRTH_TIMEOUT_S):
            return f"not in its namespace within {BIRTH_TIMEOUT_S:g} s"
    word = os.read(descriptor, 4096).decode(errors="replace")
    return "" if word == "ok" else word or "ended at birth"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exit status 2 with one line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m hosts.process.zygote", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--runtime-dir", type=Path, required=True, help="folder of the run's sockets")
    parser.add_argument("--events", required=True, help="the event collector's unix socket")
    parser.add_argument("--scenario", type=Path, required=True, help="JSON: task and nodes of the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, models and order of training (default 0)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the zygote; 2 on bad input, with one line on stderr."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    for library in ("OMP", "OPENBLAS", "MKL"):  # read at import, which comes next: one thread, or forking is not safe
        os.environ[f"{library}_NUM_THREADS"] = "1"
    from hosts.learning.errors import LearningError
    from hosts.process.birth import Birth
    from hosts.process.config import load_scenario
    from hosts.process.nursery import prepare

    try:
        if not options.runtime_dir.is_dir():
            raise BadRuntimeDir(
                f"runtime directory {options.runtime_dir} does not exist; create it or give another --runtime-dir"
            )
        emit = Emitter("zygote", options.events)
        nursery = prepare(load_scenario(options.scenario), options.seed)
        zygote = Zygote(options.runtime_dir, emit, Birth(nursery, options.runtime_dir, options.events, options.seed))
        emit("zygote.ready", pid=os.getpid(), samples_per_s=nursery.samples_per_s)
        zygote.run()
    except (DaitnError, LearningError) as error:
        print(f"hosts.process.zygote: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
