"""A testbed over several machines: the leader's side. Each server has a ``PartBed``; here are page, events and report.

The leader makes keys and certificates for all, and gives each server those of its own K-AS alone.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from controller.border.kbgp.trust import dcc_name
from experiments.cluster import gathering
from experiments.cluster.links import cuts_of, measure
from experiments.cluster.orders import BEAT_S, PartOrder, sources
from experiments.cluster.part import TLS_FOLDER
from experiments.cluster.server import Server, check_alike
from experiments.errors import ExperimentError, RunFailed
from experiments.scenarios import events
from experiments.scenarios.kinds import all_kinds
from experiments.scenarios.scenario import Scenario
from experiments.testbed import disk
from experiments.testbed.counters import LinkBytes
from experiments.testbed.folder import RunFolder
from experiments.testbed.openflow_tls import Certificates
from experiments.testbed.processes import undisturbed, wait_for
from experiments.testbed.testbed import READY_TIMEOUT_S, Bed
from hosts.learning.task_spec import TaskSpec
from packets.events import Event
from topologies.cluster.parts import crossing, kas_of
from topologies.machine.calibrate import SLOWEST_MBPS
from topologies.machine.ledger import RUN_BASE, Ledger
from topologies.plan import HostPlan

UP_S = 2 * READY_TIMEOUT_S


class ClusterBed(Bed):
    """A bed whose K-AS stand on ``placed``: {K-AS: server}."""

    def __init__(
        self, scenario: Scenario, folder: RunFolder, *, placed: Mapping[int, str], **how: Any
    ) -> None:  # fmt: skip
        super().__init__(scenario, folder, **how)
        self.placed = dict(placed)
        self.runtime = RUN_BASE / f"{self.run_id}-lead"  # one of the servers may be this machine
        names = list(dict.fromkeys(self.placed.values()))
        self._stand = False
        self.servers = {
            name: Server(name, folder.logs / f"server-{gathering.safe(name)}.log", self._hear) for name in names
        }
        self._links = LinkBytes(self.plan, self._uncounted, self._count)
        self._pool = ThreadPoolExecutor(max(1, len(names)), thread_name_prefix="servers")
        self._over = threading.Event()

    # --- bring-up ---

    def _take_machine(self) -> None:
        """Greet all servers first: what is wrong with one is said before anything is made on another."""
        self._cleanup.callback(self._end_servers)
        for server in self.servers.values():
            server.start()
        greetings = dict(zip(self.servers, [s.greet() for s in self.servers.values()], strict=True))
        check_alike(greetings, sources())
        self.folder.write_manifest(servers=msgspec.to_builtins(greetings), placed=self.placed)
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        self.runtime.mkdir(parents=True, mode=0o700)
        Ledger(self.runtime, self.runtime.name)  # by it `daitn clean` sees that this run lives

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            for server in self.servers.values():
                server.beat()

    def _make_keys(self) -> None:
        super()._make_keys()
        if self.certificates is None:
            folder = self.runtime / TLS_FOLDER
            self.certificates = Certificates.fresh(folder, self.plan.kas_numbers, self.servers)

    def _listen(self) -> None:
        super()._listen()
        self._cleanup.callback(self._end_servers)  # before the events' collector: what they say last is heard
        cuts, mtu = cuts_of(crossing(self.whole, self.placed), self.servers)
        self.folder.write_manifest(mtu=mtu)
        self._stand = True
        self.all("stand", UP_S, each=lambda name: {"order": self._order(name, cuts[name], mtu)})

    def _order(self, server: str, cuts: Sequence[Any], mtu: int) -> PartOrder:
        kas = [k for k, name in self.placed.items() if name == server]
        mine = [h for h in self.whole.stations if h.kas in kas]
        return PartOrder(
            scenario=self.scenario, run_id=self.run_id, server=server, kas=kas, cuts=list(cuts), mtu=mtu,
            files=self._files(server, kas), capture=self._want_capture, signed=self.identities is not None,
            keys=self.speakers.share([h.name for h in mine] + [dcc_name(k) for k in kas]),
        )  # fmt: skip

    def _files(self, server: str, kas: Sequence[int]) -> dict[str, bytes]:
        assert self.certificates is not None
        files = {f.name: f for s in self.whole.speakers if s.kas in kas for f in self.gateways.files(s)}
        files |= {self.speakers.directory.name: self.speakers.directory}
        tls = [self.certificates.authority, self.certificates.switches(server), *map(self.certificates.centre, kas)]
        files |= {f"{TLS_FOLDER}/{path.name}": path for path in tls}
        return {name: path.read_bytes() for name, path in files.items()}

    def start_network(self, seed: int) -> None:
        """Have every server bring its part up; then see that they are one network."""
        self.all("start_network", UP_S, seed=seed)
        self.hub.emit("network.up", plan=msgspec.to_builtins(self.plan), kinds=all_kinds(self.scenario.kas, self.plan))
        wait_for("the border sessions", self._neighbours_heard, READY_TIMEOUT_S, self.check)
        self.all("try_out")
        for link, a, b in crossing(self.whole, self.placed):
            source, target = self._beside(link.a), self._beside(link.b)
            if source and target:
                self.servers[a].ask("try_tunnel", source=source.name, target=target.name, address=target.address)
            self.hub.emit("link.tunnel", link=link.name, servers=[a, b])

    def _beside(self, switch: str) -> HostPlan | None:
        kas = next(s.kas for s in self.whole.switches if s.name == switch)
        return next((h for h in self.whole.hosts if h.kas == kas), None)

    def start_zygote(self, seed: int, data: TaskSpec | None = None) -> None:
        """Have every server start the process that forks its agents."""
        self.all("start_zygote", seed=seed)

    def start_agents(self) -> None:
        """Have every server fork its agents; returns when each has registered."""
        self.absent = events.late(self.scenario.events)
        self.all("start_agents", UP_S)

    def start_agent(self, name: str) -> None:
        """Start the agent of one terminal that is not there (yet, or any more); returns when it has registered."""
        self._at(name).ask("start_agent", UP_S, name=name)
        self.absent.discard(name)

    def stop_agents(self) -> None:
        """End every agent; network and control centres stay."""
        self.all("stop_agents")

    def end_control(self) -> None:
        """Kill every control centre for good."""
        self.all("end_control")

    def start_background(self) -> None:
        """Nothing to start: ``Where.check`` refuses a scenario with ordinary traffic."""

    # --- measuring ---

    def calibrate(self) -> list[dict[str, Any]]:
        """Measure every link against its configuration: those that are whole on a server there, then the tunnels."""
        tunnels = [
            msgspec.to_builtins(measure(link, self.servers[a], self.servers[b]))
            for link, a, b in crossing(self.whole, self.placed)
            if link.rate_mbps >= SLOWEST_MBPS
        ]
        for link in tunnels:
            self.hub.emit("link.calibrated", **link)
        return [link for found in self.all("calibrate", UP_S).values() for link in found] + tunnels

    def start_measuring(self) -> None:
        """Start the captures and take the port counters' baseline."""
        self.all("start_measuring")
        if self._want_capture:
            self.capture = gathering.Captures(self.folder, self.servers)  # type: ignore[assignment]
        self.baseline = self.port_bytes()

    def _count(self) -> tuple[dict[str, int], list[str]]:
        counted: dict[str, int] = {}
        silent: list[str] = []
        for here, deaf in self.all("counted").values():
            counted |= here
            silent += deaf
        return counted, silent

    # --- talking to terminals ---

    def tell(self, name: str, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Send a command to the agent of a terminal, as the person sitting there would."""
        answer: dict[str, Any] = self._at(name).ask(
            "tell", timeout_s + 10, name=name, command=op, within_s=timeout_s, arguments=arguments
        )
        return answer

    def home(self, name: str) -> Path:
        """Return a copy of the folder that a terminal's agent keeps its files in."""
        gathering.fetch(self._at(name), f"home/{name}", self.runtime)
        return self.runtime / name

    def hand_over(self, event: events.TimedEvent) -> bool:
        """Have a crash, or what befalls a link, happen where its node is (of a link between servers: at both ends)."""
        if event.do not in (*events.OF_LINKS, "crash"):
            return False
        link = next((x for x in self.whole.links if x.name == event.link), None) if event.link else None
        there = {self._at(end).name for end in ((link.a, link.b) if link else (event.node,))}
        for name in there:
            self.servers[name].ask("happen", happening=event)
        if any(s.name == event.node for s in self.whole.switches):
            self._cut_off(event.node, there)
        return True

    def _cut_off(self, switch: str, there: set[str]) -> None:
        """A tunnel hands no loss of carrier on: the far ends of a dead switch's links are taken down as well."""
        for link, a, b in crossing(self.whole, self.placed):
            if switch in (link.a, link.b):
                for name in {a, b} - there:
                    down = events.TimedEvent(at_s=0.0, do="down", link=link.name)
                    self.servers[name].ask("happen", happening=down)

    def check(self) -> None:
        """Raise when a server is gone, or nothing more can be written here."""
        for server in self.servers.values():
            server.check()
        disk.check_now(self.folder.path)

    def _at(self, node: str) -> Server:
        kas = kas_of(self.whole).get(node)
        if kas is None:
            raise ExperimentError(f"there is no {node} in this network")
        return self.servers[self.placed[kas]]

    def all(
        self, op: str, timeout_s: float = 150.0, *, each: Callable[[str], dict[str, Any]] | None = None, **args: Any
    ) -> dict[str, Any]:
        """Ask all servers at once; return their answers. What one cannot do is raised once all have answered."""

        def ask(name: str) -> Any:
            return self.servers[name].ask(op, timeout_s, **args, **(each(name) if each else {}))

        asked = {name: self._pool.submit(ask, name) for name in self.servers}
        failures = [error for future in asked.values() if (error := future.exception()) is not None]
        self.check()  # who is lost is the reason of what others say
        if failures:
            raise failures[0]
        return {name: future.result() for name, future in asked.items()}

    def _hear(self, event: Event) -> None:
        hub = getattr(self, "hub", None)
        if hub is not None:
            hub.hear(event)

    # --- down ---

    def _end_servers(self) -> None:
        """Have all servers take their part down at once, fetch what they recorded, and let them go."""
        if self._over.is_set():
            return
        lost: list[str] = []
        memory: dict[str, float] = {}
        one_at_a_time = threading.Lock()

        def quiet(server: Server) -> None:
            with contextlib.suppress(ExperimentError, RunFailed):
                server.ask("stop_agents", UP_S)

        def end(server: Server) -> None:
            try:
                memory[server.name] = server.ask("peak_memory_mib")
                server.ask("finish", UP_S)
                with one_at_a_time:
                    gathering.fetch_folder(server, self.folder)
            except (ExperimentError, RunFailed, OSError) as error:
                lost.append(f"what server {server.name} recorded is not here: {error}")
                server.clean(self.run_id)
            finally:
                server.end()

        with ThreadPoolExecutor(max(1, len(self.servers))) as pool:
            for step in (quiet, end) if self._stand else (Server.end,):  # nobody is left to miss the other
                list(pool.map(step, self.servers.values()))
        self._over.set()
        if memory:
            self.folder.write_manifest(peak_memory_mib=memory)
        for text in lost:
            self.hub.emit("warning", text=text)

    def close(self) -> None:
        """Tear everything down, everywhere; safe to call twice."""
        with undisturbed():
            self._cleanup.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            shutil.rmtree(self.runtime, ignore_errors=True)
