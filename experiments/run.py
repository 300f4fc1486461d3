"""The main job: bring up, calibrate, gather, train by travelling, return, deploy, query, load, report."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError, RunFailed
from experiments.load import askers_of, put, run_load, told_by
from experiments.report.report import Outcome, write_report
from experiments.scenarios.events import LEAVE_TIMEOUT_S, Timeline
from experiments.scenarios.scenario import Scenario, dump
from experiments.testbed.counters import MemoryWatch, link_interfaces
from experiments.testbed.processes import PROJECT, python
from experiments.testbed.testbed import Bed
from experiments.ways import Part, deploy_part, deploy_ways
from packets.messages import JobSpec
from packets.queries import variant_task

METHODS = (
    "routed", "learned", "random", "cycle", "tramfl", "federated", "secure", "gossip", "split", "central", "auto", "own"
)  # fmt: skip
GATHER_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 30.0
RETURN_S = 3.0
GRACE_S = 30.0
# To convergence: the ceiling, not a straw man.
POOLED_EPOCHS = {"vignettes": 6, "table": 60, "text": 20, "digits": 40, "own": 20}


class Run:
    """One run of a scenario. ``outcomes`` has one entry a seed, in order."""

    def __init__(self, bed: Bed, *, method: str = "routed") -> None:
        self.bed = bed
        self.scenario = bed.scenario
        self.folder = bed.folder
        self.method = method
        self.phases_s: dict[str, float] = {}
        self.outcomes: list[Outcome] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase and say so; phases of several seeds add up."""
        start = time.monotonic()
        self.bed.check()
        self.bed.hub.emit("run.phase", phase=name, state="start")
        yield
        seconds = time.monotonic() - start
        self.phases_s[name] = self.phases_s.get(name, 0.0) + seconds
        self.bed.hub.emit("run.phase", phase=name, state="end", seconds=round(seconds, 3))

    def carry_out(self, started_s: float) -> dict[str, Any]:
        """Do the whole job and write the report; ``started_s``: monotonic time at which the user pressed Enter."""
        seeds = range(self.scenario.seed, self.scenario.seed + self.scenario.seeds)
        self.folder.scenario.write_bytes(dump(self.scenario))
        self.folder.write_manifest(
            seed=self.scenario.seed, seeds=list(seeds), method=self.method, run_id=self.bed.run_id
        )
        watch = MemoryWatch(self.bed.run_id)
        self.bring_up(seeds[0])
        for seed in seeds:
            if seed != seeds[0]:
                with self.phase("agents"):
                    self._change_seed(seed)
            self.outcomes.append(self._one_seed(seed))
        with self.phase("report"):
            return self._report(started_s, watch)

    def bring_up(self, seed: int) -> None:
        """Network, then its calibration while nothing else is on the wire, then the agents."""
        with self.phase("network"):
            self.bed.start_network(seed)
        with self.phase("calibrate"):
            self.folder.write_manifest(links=self.bed.calibrate())
            self.bed.start_measuring()
        with self.phase("agents"):
            self.bed.start_agents()
            self.bed.start_background()

    def _change_seed(self, seed: int) -> None:
        """Have all agents leave in good order (else their DCCs would miss them), and new ones come."""
        names = [h.name for h in self.bed.plan.hosts if h.role != "host" and h.name not in self.bed.absent]

        def leave(name: str) -> None:
            with contextlib.suppress(RunFailed):  # one that an event has crashed is missed already
                self.bed.tell(name, "leave", LEAVE_TIMEOUT_S)

        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(leave, names))
        self.bed.stop_agents()
        self.bed.start_zygote(seed)
        self.bed.start_agents()

    def _one_seed(self, seed: int) -> Outcome:
        outcome = Outcome(seed=seed, first_event=len(self.bed.events))
        with self.phase("gather"):
            gather(self.bed)
        before, started_s = sum(self.bed.port_bytes().values()), time.monotonic()
        with self.phase("submit"):
            self._submit(seed, outcome)
        if outcome.spec:
            with self.phase("train"), Timeline(self.bed, self.scenario.events):
                self._come_home(seed, outcome.spec, outcome)
            outcome.train_s = round(time.monotonic() - started_s, 3)
            outcome.train_bytes = sum(self.bed.port_bytes().values()) - before
        if outcome.spec and self.bed.terminals("mdfp"):
            with self.phase("deploy"):
                for _ in range(self.scenario.replicas):
                    deploy(self.bed, outcome.object_id)
            if self.scenario.ways:
                with self.phase("ways"):
                    outcome.ways = deploy_all_ways(self.bed, outcome.object_id, outcome.spec)
            self._ask(seed, outcome)
        if self.scenario.compare_pooled:
            with self.phase("pooled"):
                outcome.pooled = self._pooled(seed)
        outcome.last_event = len(self.bed.events)
        return outcome

    def _submit(self, seed: int, outcome: Outcome) -> None:
        """Submit the jobs in order until T-FAM admits one; every verdict is kept."""
        for wanted in self.scenario.jobs:
            job = msgspec.structs.replace(wanted, seed=seed, method=self.method)
            reply = submit(self.bed, job)
            outcome.assessments.append(msgspec.to_builtins(job) | reply)
            if reply["admitted"]:
                outcome.object_id, outcome.spec = reply["object_id"], job
                return

    def _come_home(self, seed: int, job: JobSpec, outcome: Outcome) -> None:
        come_home(self.bed, job, outcome)
        keep_model(self.bed, f"s{seed}" if self.scenario.seeds > 1 else "")

    def _ask(self, seed: int, outcome: Outcome) -> None:
        """Put the scenario's one query, then its load of them."""
        if self.scenario.query and self.bed.terminals("query_owner"):
            with self.phase("query"):
                outcome.query = query(self.bed, self.scenario.data.name, self.scenario.query.group)
        if self.scenario.queries:
            file = self.folder.path / ("queries.csv" if self.scenario.seeds == 1 else f"queries-s{seed}.csv")
            with self.phase("queries"), Timeline(self.bed, self.scenario.events, "queries"):
                outcome.queries = run_load(self.bed, self.scenario.queries, seed, file, told_by(self.bed))

    def _pooled(self, seed: int) -> dict[str, Any]:
        return pooled(self.scenario, seed, len(self.bed.terminals("data")), self.folder.path)

    def _report(self, started_s: float, watch: MemoryWatch) -> dict[str, Any]:
        counted = {link: n - self.bed.baseline.get(link, 0) for link, n in self.bed.port_bytes().items()}
        if self.bed.background:
            self.folder.write_manifest(background=self.bed.background.measured())
        if self.bed.capture:
            self.bed.capture.stop()
            if lost := self.bed.capture.dropped():
                self.bed.hub.emit("warning", text=f"the capture lost {lost} frames; port counters have them")
        return write_report(
            self.folder,
            self.scenario,
            method=self.method,
            plan=self.bed.plan,
            events=list(self.bed.events),
            outcomes=self.outcomes,
            links_by_interface=link_interfaces(self.bed.plan),
            counted_bytes=counted,
            phases_s=self.phases_s,
            started_s=started_s,
            peak_memory_mib=watch.stop(),
        )


def allow(scenario: Scenario, method: str) -> Scenario:
    """Return the scenario as a method needs it: central pooling is the baseline for which all data may move."""
    if method != "central":
        return scenario
    return msgspec.structs.replace(scenario, network=msgspec.structs.replace(scenario.network, data_may_move=True))


def check_method(method: str, own: str = "") -> None:
    """Check the name of a way to train; ``ExperimentError`` names those there are. ``own``: what ``own`` stands for."""
    if method not in METHODS:
        raise ExperimentError(
            f"no method is called {method!r}; there are: {', '.join(METHODS)}; or give one of your own as file.py:Class"
        )
    if method == "own" and not own:
        raise ExperimentError(
            "method own: this network was given no method of your own; "
            "say --method file.py:Class with `daitn run` or `up`, or `data: {method: file.py:Class}` in the scenario"
        )


def gather(bed: Bed) -> None:
    """Have every data node see to it that its test samples reached both MPVUs; ``RunFailed`` names one that did not.

    From then on there are no control centres, where the scenario is to do without.
    """
    data_nodes = bed.terminals("data")

    def send(name: str) -> dict[str, Any]:
        return bed.tell(name, "send_test_samples", GATHER_TIMEOUT_S)

    with ThreadPoolExecutor(len(data_nodes) or 1) as pool:
        for name, answer in zip(data_nodes, pool.map(send, data_nodes), strict=True):
            if answer.get("failed"):
                raise RunFailed(f"test samples of {name} did not reach the MPVUs: {answer['failed']}")
    if bed.scenario.without_control:
        bed.end_control()


def submit(bed: Bed, job: JobSpec, owner: str = "") -> dict[str, Any]:
    """Submit a job at a model owner (none named: the first); return T-FAM's verdict."""
    name = owner_named(bed, owner)
    reply: dict[str, Any] = bed.tell(name, "submit", ANSWER_TIMEOUT_S, spec=msgspec.to_builtins(job))["reply"]
    return reply


def owner_named(bed: Bed, name: str) -> str:
    """Return a model owner's name, the first one's for ''; ``ExperimentError`` when there is none of that name."""
    owners = bed.terminals("model_owner")
    if not owners:
        raise ExperimentError(
            f"scenario {bed.scenario.name}: no K-AS has a model_owner, nobody can submit; add `model_owner: 1` to one"
        )
    if name and name not in owners:
        raise ExperimentError(f"no model owner is called {name!r}; there are: {', '.join(owners)}")
    return name or owners[0]


def come_home(bed: Bed, job: JobSpec, outcome: Outcome) -> None:
    """Wait until the owner has its model back and the DCC has closed the job; ``RunFailed`` past the deadline."""
    mark, object_id = outcome.first_event, outcome.object_id
    first = bed.wait_event(("object.returned", "job.finished"), job.deadline_s + GRACE_S, mark, object_id=object_id)
    if first.kind == "job.finished" and first.data.get("state") == "failed":
        with contextlib.suppress(RunFailed):  # two processes tell: the words may come in either order
            bed.wait_event("object.returned", RETURN_S, mark, object_id=object_id)
            return
        raise RunFailed(f"job {object_id:x} failed: {first.data.get('reason')}")
    for kind in ("object.returned", "job.finished"):
        bed.wait_event(kind, ANSWER_TIMEOUT_S, mark, object_id=object_id)


def keep_model(bed: Bed, subfolder: str = "", owner: str = "", object_id: int = 0) -> Path:
    """Copy a model and its training log (no object: what came home last) into the run's folder; return where."""
    target = bed.folder.model / subfolder
    target.mkdir(parents=True, exist_ok=True)
    home = bed.home(owner_named(bed, owner))
    for file in (home / f"{object_id:x}" if object_id else home).glob("*.*"):
        shutil.copy2(file, target)
    return target


def deploy(bed: Bed, object_id: int, owner: str = "") -> None:
    """Have the owner deploy a trained model; returns when an MDFP hosts it and its DCC, if it has one, knows."""
    if bed.scenario.without_control:
        mark = len(bed.events)
        bed.tell(owner_named(bed, owner), "deploy", ANSWER_TIMEOUT_S, object_id=object_id, aats=True)
        bed.wait_event("model.deployed", ANSWER_TIMEOUT_S, mark, object_id=object_id)
        return
    deploy_part(bed, owner_named(bed, owner), Part("", {"object_id": object_id}, {}))


def deploy_all_ways(bed: Bed, object_id: int, job: JobSpec, owner: str = "") -> dict[str, Any]:
    """Deploy the scenario's ways beside a trained model of a job; return what is to be told of each."""
    return deploy_ways(bed, owner_named(bed, owner), object_id, job, lambda jobs: train_too(bed, jobs, owner))


def train_too(bed: Bed, jobs: Sequence[JobSpec], owner: str = "") -> list[int]:
    """Have further models trained, all at the same time; return them once all are home. ``RunFailed``: one is not."""
    mark, found = len(bed.events), []
    for job in jobs:
        reply = submit(bed, job, owner)
        if not reply["admitted"]:
            raise RunFailed(f"a further model was not admitted: {'; '.join(reply['reasons'])}")
        found.append(Outcome(seed=job.seed, first_event=mark, object_id=reply["object_id"]))
    for job, outcome in zip(jobs, found, strict=True):
        come_home(bed, job, outcome)
    return [outcome.object_id for outcome in found]


def query(
    bed: Bed, task: str, group: str, text: str = "", *, need: dict[str, Any] | None = None, answer_to: str = "",
    way: str = "", aats: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Put one query at the first query owner; return answer, expected answer, who answered and the latency.

    It asks an unseen sample of ``group``, or for a ``text`` in somebody's own words, to which no answer is expected.
    ``need``: what it needs (``packets.queries.Need``); ``answer_to``: the terminal that gets the answer instead;
    ``way``: the variant of the task's models that is asked; ``aats``: no control centre leads it, the asker does.
    """
    asker, aats = askers_of(bed)[0], aats or bed.scenario.without_control
    address = address_of(bed, answer_to) if answer_to else ""
    reply = put(bed, asker, group, text=text, need=need, answer_to=address, task=variant_task(task, way), aats=aats)
    return {key: value for key, value in reply.items() if key != "ok"} | {"answer_to": answer_to}


def address_of(bed: Bed, name: str) -> str:
    """Return a terminal's address; ``ExperimentError`` when none is called so."""
    found = next((h.address for h in bed.plan.hosts if name in (h.name, h.address)), None)
    if found is None:
        raise ExperimentError(f"no terminal is called {name!r}; `daitn status` lists them")
    return found


def pooled(scenario: Scenario, seed: int, nodes: int, folder: Path) -> dict[str, Any]:
    """Train on all data in one place (what DA-ITN avoids), in a process of its own; return its test accuracy."""
    file = folder / "task.json"
    file.write_bytes(msgspec.json.encode(scenario.data))
    arguments = {"--spec": file, "--nodes": nodes, "--epochs": POOLED_EPOCHS[scenario.data.name], "--seed": seed}
    command = python("hosts.learning", "--pooled", *(str(x) for pair in arguments.items() for x in pair))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=PROJECT)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise RunFailed(f"pooled training: {error.stderr.strip()}") from None
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise RunFailed(f"pooled training: {error}") from None
    return result
