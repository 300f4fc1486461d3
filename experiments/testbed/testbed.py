"""Bring-up and teardown of a whole testbed: network, control centres, agents, page, capture."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from controller.oam.hub import EventHub
from controller.oam.metrics import Metrics
from controller.oam.page import PageServer, create_app
from controller.oam.state.run import NetworkState
from experiments.errors import RunFailed
from experiments.scenarios import events
from experiments.scenarios.kinds import all_kinds
from experiments.scenarios.scenario import Scenario, network_plan
from experiments.testbed import disk, terminal
from experiments.testbed.background import Background
from experiments.testbed.capture import BORDER_FRAMES, WHOLE_BYTES, Capture
from experiments.testbed.control import tell_control, tell_engines
from experiments.testbed.counters import LinkBytes, link_interfaces
from experiments.testbed.folder import RunFolder
from experiments.testbed.gateways import KEYLOG, Gateways, joined
from experiments.testbed.identities import REVOKED_FILE, Identities
from experiments.testbed.openflow_tls import HERE, Certificates
from experiments.testbed.processes import Child, python, undisturbed, wait_for
from experiments.testbed.revival import Revival
from experiments.testbed.zygote import zygote_command
from hosts.learning.task_spec import TaskSpec
from packets.events import Event
from topologies.machine import calibrate
from topologies.machine.cgroups import create_group
from topologies.machine.cleanup import clean
from topologies.machine.ledger import RUN_BASE
from topologies.machine.preflight import RunLock, check_machine
from topologies.machine.selftest import check_udp
from topologies.network import Network
from topologies.plan import HostPlan

FIRST_OPENFLOW_PORT = 6653
READY_TIMEOUT_S = 120.0  # a slow virtual machine gets there too


class Bed:
    """One standing testbed, a context manager: whatever happens inside, all that was made is removed, nothing else."""

    def __init__(
        self, scenario: Scenario, folder: RunFolder, *, page_port: int | None, capture: bool = True,
        certificates: Certificates | None = None, tls: bool = False, listener: socket.socket | None = None,
    ) -> None:  # fmt: skip
        self.scenario = scenario
        self.folder = folder
        self.whole = self.plan = network_plan(scenario)  # a bed that is one of several has a part of the whole
        self.run_id = f"{os.getpid():x}-{secrets.token_hex(3)}"
        self.runtime = RUN_BASE / self.run_id
        self.events: list[Event] = []
        self.children: list[Child] = []
        self.background: Background | None = None
        self.baseline: dict[str, int] = {}
        self.absent: set[str] = set()
        self._page_port, self._listener = page_port, listener
        self._want_capture = capture
        self._zygote: Child | None = None
        self.identities: Identities | None = None
        self.certificates = certificates  # of OpenFlow over TLS (None: plain)
        self._fresh_tls = tls and certificates is None
        self._links = LinkBytes(self.plan, self._uncounted)
        self._cleanup = contextlib.ExitStack()
        self.capture: Capture | None = None
        self.page: PageServer | None = None

    def __enter__(self) -> Bed:
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- bring-up ---

    def _prepare(self) -> None:
        self._take_machine()
        self._make_keys()
        self._listen()

    def _take_machine(self) -> None:
        self._cleanup.enter_context(RunLock(self.run_id))
        ports = [FIRST_OPENFLOW_PORT + k - 1 for k in self.plan.kas_numbers]
        check_machine(ports=ports, page_port=self._page_port)
        (self.runtime / "agents").mkdir(parents=True, mode=0o700)
        self.runtime.chmod(0o700)
        self._cleanup.callback(clean, self.run_id, force=True)

    def _listen(self) -> None:
        self.hub = EventHub(self.runtime / "events.sock", self.folder.events)
        self.state = NetworkState()
        metrics = Metrics()
        for listener in (self.events.append, self.state.apply, metrics.apply):
            self.hub.add_listener(listener)
        self.hub.start()
        self._cleanup.callback(self.hub.close)
        if self._page_port is not None:
            app = create_app(self.state, self.hub, metrics)
            self.page = PageServer(app, port=self._page_port, listener=self._listener)
            self.page.start()
            self._cleanup.callback(self.page.close)

    def _make_keys(self) -> None:
        """Make who speaks in this run: terminals, control centres, border speakers; and certificates for OpenFlow."""
        self.speakers = identities = Identities(self.whole, self.runtime)
        self.identities = identities if self.scenario.security else None
        keylog = self.folder.logs / KEYLOG if self._want_capture else None
        self.gateways = Gateways(self.whole, self.runtime, identities, signed=self.scenario.security, keylog=keylog)
        if self._fresh_tls:
            self.certificates = Certificates.fresh(self.runtime / "tls", self.whole.kas_numbers, [HERE])

    def _make_network(self) -> Network:
        ports = {k: FIRST_OPENFLOW_PORT + k - 1 for k in self.plan.kas_numbers}
        tls = self.certificates.switch_tls() if self.certificates else None
        return Network(self.plan, self.run_id, ports, self.runtime, tls=tls)

    def start_network(self, seed: int) -> None:
        """Bring up switches, links, terminals and control centres; PyTorch loads meanwhile."""
        self.network = self._make_network()
        self._cleanup.callback(self.network.stop)  # last to go: agents and control centres end while it carries them
        self._cleanup.callback(self._stop_children)
        self.start_zygote(seed)
        controllers = [self._start_controller(k, seed) for k in self.plan.kas_numbers]
        self.network.start()
        self.hub.emit("network.up", plan=msgspec.to_builtins(self.plan), kinds=all_kinds(self.scenario.kas, self.plan))
        self._capture_borders()
        speakers = [self._start_speaker(s) for s in self.plan.speakers]
        ready = [self.runtime / f"dcc{k}.ready" for k in self.plan.kas_numbers]
        wait_for("the control centres", lambda: all(p.exists() for p in ready), READY_TIMEOUT_S, self.check)
        self._try_out()
        self._controllers = controllers
        self._revival = Revival([*controllers, *speakers], lambda text: self.hub.emit("warning", text=text))
        self._revival.start()
        self._cleanup.callback(self._revival.stop)

    def _try_out(self) -> None:
        wait_for("the border sessions", self._neighbours_heard, READY_TIMEOUT_S, self.check)
        first, last = self.plan.hosts[0].name, self.plan.hosts[-1].name
        check_udp(self.network.hosts[first], self.network.hosts[last])

    def _start_controller(self, kas: int, seed: int) -> Child:
        arguments = {
            **tell_control(self.runtime, self.scenario, self.whole, kas, seed),
            "--openflow-port": FIRST_OPENFLOW_PORT + kas - 1,
            "--runtime-dir": self.runtime,
            "--events": self.runtime / "events.sock",
            "--database": self.folder.path / f"dcc{kas}.sqlite",
            "--seed": seed,
            "--revoked": self.runtime / REVOKED_FILE,
            "--place-every": self.scenario.place_every_s,
            **tell_engines(self.runtime, self.scenario, kas),
            **(self.identities.controller_options(kas) if self.identities else {}),
            **(self.certificates.controller_options(kas) if self.certificates else {}),
        }
        return self._spawn(f"dcc{kas}", python("controller", *(str(x) for pair in arguments.items() for x in pair)))

    def end_control(self) -> None:
        """Kill every control centre for good (switches keep their rules); the event has their process ids."""
        self.hub.emit("control.ended", pids=self._revival.end(self._controllers))

    def _capture_borders(self) -> None:
        links = self._captured(borders=True)
        if self._want_capture and links:
            log = self.folder.logs / "dumpcap-border.log"
            capture = Capture(self.folder.border, links, log, self.run_id, BORDER_FRAMES, WHOLE_BYTES)
            self._cleanup.callback(capture.stop)
            capture.wait_ready()

    def _captured(self, *, borders: bool = False) -> dict[str, str]:
        return link_interfaces(self.plan, borders=borders)

    def _start_speaker(self, speaker: HostPlan) -> Child:
        return self._spawn(speaker.name, self.gateways.command(speaker, self.network.hosts[speaker.name].pid))

    def _neighbours_heard(self) -> bool:
        """Tell whether every control centre has heard of all K-AS that a link joins to its own."""
        heard = {(e.data["kas"], e.data["to"]) for e in self.events if e.kind == "border.way" and e.data["path"]}
        return all({(a, b), (b, a)} <= heard for a, b in joined(self.plan))

    def _spawn(self, name: str, command: list[str]) -> Child:
        child = Child(name, command, self.folder.logs / f"{name}.log", self.run_id)
        self.children.append(child)
        return child

    def start_zygote(self, seed: int, data: TaskSpec | None = None) -> None:
        """Start the process that imports PyTorch once and holds every node's data until it has forked the agents."""
        self._zygote = self._spawn("zygote", zygote_command(self.scenario, self.whole, self.runtime, seed, data))

    def start_agents(self) -> None:
        """Fork one agent, PyTorch ready, into every terminal's namespace; returns when each has registered."""
        assert self._zygote is not None
        socket = self.runtime / "zygote.sock"
        wait_for("the zygote (PyTorch)", socket.exists, READY_TIMEOUT_S, self.check)
        mark = len(self.events)
        self.absent = events.late(self.scenario.events)
        names = {h.name for h in self.plan.hosts if h.role != "host"} - self.absent
        for host in self.plan.hosts:
            if host.name in names:
                self._fork(host)
        wait_for("the agents", lambda: names <= self._seen("agent.ready", mark), READY_TIMEOUT_S, self.check)

    def start_background(self) -> None:
        """Start the scenario's ordinary traffic, which goes on until the network is taken down."""
        if not self.scenario.background:
            return
        place = {h.name: (self.network.hosts[h.name].pid, h.address) for h in self.plan.hosts}
        self.background = Background(self.scenario.background, place, self.folder.logs, self.run_id)
        self._cleanup.callback(self.background.stop)
        self.background.start(lambda what, ready: wait_for(what, ready, READY_TIMEOUT_S, self.check))

    def start_agent(self, name: str) -> None:
        """Start the agent of one terminal that is not there (yet, or any more); returns when it has registered."""
        mark = len(self.events)
        self._fork(next(h for h in self.plan.hosts if h.name == name))
        wait_for(f"agent {name}", lambda: name in self._seen("agent.ready", mark), READY_TIMEOUT_S, self.check)
        self.absent.discard(name)

    def _fork(self, host: HostPlan) -> None:
        group = create_group(self.run_id, host.name, host.cpu_share)
        terminal.call(
            self.runtime / "zygote.sock",
            "fork",
            host=msgspec.to_builtins(host),
            netns_pid=self.network.hosts[host.name].pid,
            cgroup=group and str(group),
            keys=self.identities and self.identities.keys(host.name),
        )

    def _stop_children(self) -> None:
        """End agents first, then control centres, all asked at once: nobody is left to miss the other."""
        self.stop_agents()
        for child in self.children:
            child.ask_to_stop()
        for child in self.children:
            child.stop()

    def stop_agents(self) -> None:
        """End the zygote and with it every agent; network and control centres stay."""
        if self._zygote is not None:
            self._zygote.stop()
            self.children.remove(self._zygote)
            self._zygote = None

    def _seen(self, kind: str, mark: int) -> set[str]:
        return {e.data.get("name", "") for e in self.events[mark:] if e.kind == kind}

    # --- measuring ---

    def _uncounted(self, switch: str) -> None:
        self.hub.emit("warning", text=f"switch {switch} does not answer any more; its counters are as last read")

    def calibrate(self) -> list[dict[str, Any]]:
        """Measure every link against its configuration; events and manifest get the figures."""
        results = [msgspec.to_builtins(r) for r in calibrate.calibrate(self.network)]
        for result in results:
            self.hub.emit("link.calibrated", **result)
        for text in [*self.network.warnings, *calibrate.unmeasured(self.plan)]:
            self.hub.emit("warning", text=text)
        return results

    def start_measuring(self) -> None:
        """Start the capture and take the port counters' baseline."""
        if self._want_capture:
            self.capture = Capture(self.folder.capture, self._captured(), self.folder.logs / "dumpcap.log", self.run_id)
            self._cleanup.callback(self.capture.stop)
            self.capture.wait_ready()
        self.baseline = self.port_bytes()

    def port_bytes(self) -> dict[str, int]:
        """Return rx + tx bytes of each link, by its name, since the network came up."""
        return self._links.read()

    # --- talking to terminals ---

    def terminals(self, role: str) -> list[str]:
        """Return the names of the terminals of a role that are there, sorted."""
        return sorted(h.name for h in self.plan.hosts if h.role == role and h.name not in self.absent)

    def hand_over(self, event: events.TimedEvent) -> bool:
        """Have an event happen on another machine, where its node is; here all nodes are."""
        return False

    def home(self, name: str) -> Path:
        """Return the folder that a terminal's agent keeps its files in."""
        return self.runtime / name

    def tell(self, name: str, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Send a command to the agent of a terminal, as the person sitting there would."""
        socket = self.runtime / "agents" / f"{name}.sock"
        return terminal.call(socket, op, timeout_s, meanwhile=lambda: disk.check_now(self.folder.path), **arguments)

    def check(self) -> None:
        """Raise ``RunFailed`` when a process of ours has ended, or nothing more can be written."""
        for child in self.children:
            child.check()
        disk.check_now(self.folder.path)

    def wait_event(
        self,
        kind: str | tuple[str, ...],
        timeout_s: float,
        mark: int = 0,
        *,
        where: Callable[[dict[str, Any]], bool] = bool,
        **match: Any,
    ) -> Event:
        """Wait for an event of a kind (or one of several) whose data holds ``match`` and passes ``where``.

        ``RunFailed`` after ``timeout_s``.
        """
        at, kinds = mark, (kind,) if isinstance(kind, str) else kind
        end = time.monotonic() + timeout_s
        while True:
            while at < len(self.events):
                event = self.events[at]
                at += 1
                if event.kind in kinds and all(event.data.get(k) == v for k, v in match.items()) and where(event.data):
                    return event
            self.check()
            if time.monotonic() > end:
                raise RunFailed(
                    f"no {' or '.join(kinds)} event after {timeout_s:.0f} s; logs are in {self.folder.logs}"
                )
            time.sleep(0.02)

    def close(self) -> None:
        """Tear everything down, in reverse order of making; safe to call twice; a second Ctrl-C changes nothing."""
        with undisturbed():
            self._cleanup.close()
            shutil.rmtree(self.runtime, ignore_errors=True)
