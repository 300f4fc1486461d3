"""What the benchmarks of the inference plane share: a model trained and deployed, and loads of queries."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import PROJECT, NotSeen, python, say
from benchmarks.standing import StandingNetwork
from experiments.commands.client import request
from experiments.load import AHEAD_S, asker_specs
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec
from packets.events import Event
from packets.messages import JobSpec
from packets.security.identity import Identity

HOME_S, DEPLOY_S, KNOWN_S = 120.0, 30.0, 10.0


class Ends:
    """Processes at terminals of a standing network, and what they need."""

    def __init__(self, network: StandingNetwork, folder: Path, asker: str, spec: TaskSpec) -> None:
        self.network, self.folder, self.asker, self.task = network, folder, asker, spec.name
        answer = request("keys", timeout_s=10.0, name=asker)
        self.keys, self.directory = folder / "keys", Path(answer["directory"])
        Identity.from_json(answer["keys"]).save(self.keys)
        plan = network.events("network.up")[0].data["plan"]
        self.address = {h["name"]: h["address"] for h in plan["hosts"]}
        self.spec, self.samples = folder / "spec.json", folder / "samples.json"
        self.spec.write_bytes(msgspec.json.encode(spec))
        learning, rng = load_task(spec), random.Random(1)
        self.samples.write_text(json.dumps([learning.sample_of("", rng)[0] for _ in range(256)]))

    def run(self, mode: str, **options: Any) -> dict[str, Any]:
        """Run an asker's end; return its result."""
        done = subprocess.run(
            self._words(self.asker, mode, own=self.address[self.asker], keys=self.keys, directory=self.directory,
                        samples=self.samples, task=self.task, **options),
            capture_output=True, text=True, timeout=120, check=False, cwd=PROJECT,
        )  # fmt: skip
        if done.returncode:
            raise NotSeen(f"{mode}: {done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    @contextlib.contextmanager
    def server(self, mode: str, at: str, port: int, model: Path) -> Iterator[None]:
        """Have a server of the others at a terminal, in its share of the machine."""
        group = Path(f"/sys/fs/cgroup/daitn-{self.network.runtime.name}/{at}/cgroup.procs")
        words = self._words(
            at, mode, server=self.address[at], port=port, spec=self.spec, model=model
        )  # fmt: skip
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=PROJECT)
        try:
            if group.exists():
                group.write_text(str(process.pid))
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise NotSeen(f"{mode} did not start")
            yield
        finally:
            process.kill()
            process.wait()

    def _words(self, terminal: str, mode: str, **options: Any) -> list[str]:
        words = ["nsenter", "-t", str(self.network.pid(terminal)), "-n", *python("benchmarks.steer_end", mode)]
        for name, value in options.items():
            many = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, many)]
        return words


def terminals(network: StandingNetwork, role: str) -> list[str]:
    """Return the names of a role's terminals, as declared."""
    plan = network.events("network.up")[0].data["plan"]
    return [h["name"] for h in plan["hosts"] if h["role"] == role]


def kas_of(network: StandingNetwork) -> dict[str, int]:
    """Return the K-AS of each terminal."""
    plan = network.events("network.up")[0].data["plan"]
    return {h["name"]: h["kas"] for h in plan["hosts"]}


def trained(network: StandingNetwork, task: str = "vignettes", visits: int = 2, target: float = 0.5) -> int:
    """Have a model trained by travelling, and verified; return its job's number once it is home."""
    for name in terminals(network, "data"):
        network.at(name, "send_test_samples", timeout_s=60.0)
    owner = terminals(network, "model_owner")[0]
    spec = JobSpec(task=task, broad_accuracy=target, max_visits=visits, deadline_s=HOME_S)
    reply = network.at(owner, "submit", spec=msgspec.to_builtins(spec))["reply"]
    assert reply["admitted"], reply["reasons"]
    network.wait_for("object.returned", HOME_S, object_id=reply["object_id"])
    return int(reply["object_id"])


def deployed(network: StandingNetwork, job: int, replicas: int) -> dict[str, int]:
    """Deploy a trained model so many times; return the label at each MDFP, once its control centre knows of it."""
    owner, labels = terminals(network, "model_owner")[0], dict[str, int]()
    for _ in range(replicas):
        before = len(network.events("model.deployed"))
        network.at(owner, "deploy", object_id=job)
        event = network.wait_until(partial(_deployed, network, before), DEPLOY_S, "deployment")
        node, label = str(event.data["node"]), int(event.data["object_id"]) & 0xFFF_FFFF
        labels[node] = label
        network.wait_until(partial(_knows, network, node, label), KNOWN_S, f"{node} on the map")
    say(f"deployed at {', '.join(labels)}")
    return labels


def _deployed(network: StandingNetwork, before: int) -> Event | None:
    """Return the deployment after so many."""
    return next(iter(network.events("model.deployed")[before:]), None)


def _knows(network: StandingNetwork, node: str, label: int) -> bool | None:
    told = network.events("krrm.updated", name=node)
    models = [e.data["attributes"].get("models") or [] for e in told]
    return any(m.get("label") == label for held in models for m in held if isinstance(m, dict)) or None


def load(network: StandingNetwork, askers: Sequence[str], spec: QueriesSpec, seed: int = 0) -> list[asked.Row]:
    """Have askers ask together, each at its K-AS; return what became of every query."""
    begin(network, askers, spec, seed)
    time.sleep(spec.seconds)
    return ended(network, askers)


def begin(network: StandingNetwork, askers: Sequence[str], spec: QueriesSpec, seed: int = 0) -> None:
    """Have askers begin together."""
    kas, start = kas_of(network), time.time() + AHEAD_S
    for name, own in asker_specs(spec, {a: kas[a] for a in askers}, seed).items():
        network.at(name, "load", spec=own | {"start_unix_s": start})


def ended(network: StandingNetwork, askers: Sequence[str]) -> list[asked.Row]:
    """Wait until the askers' last loads are over; return their rows."""

    ages: list[float] = []

    def one(name: str) -> list[asked.Row]:
        result = network.at(name, "load_result", timeout_s=40.0, wait_s=20.0)
        assert result["over"], f"the load of {name} is not over: {result}"
        ages.append(result["known_age_ms"] or 0.0)
        return asked.read(Path(result["file"]))

    with ThreadPoolExecutor(len(askers)) as pool:
        found = sorted(row for rows in pool.map(one, askers) for row in rows)
    say(f"what was known of a model when it was chosen was {sum(ages) / len(ages):.0f} ms old")
    return found
