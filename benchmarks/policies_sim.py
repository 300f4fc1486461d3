"""A simulation of askers, replicas and stale knowledge: which policy picks best?  A design aid, not a measurement.

    python -m benchmarks.policies_sim                                # all policies, three loads: 20 s
    python -m benchmarks.policies_sim --seeds 101 102 103 --service-ms 20 60 60 150 --layout 5

The real figures are those of ``make bench-queries``, on the network. Here: replicas of unequal speed, first come first
served, a queue of 64 beyond which queries are refused; some askers at each of four sites; arrivals Poisson, open loop,
at a total rate that is a share of what all replicas can answer, one site asking four times as much as each other, every
10 s another one. The work of a query is gamma distributed (coefficient of variation 0.5), the same queries at the same
moments for every policy. A path's delay is constant and there is no loss.

What an asker knows is what it would on the network: every answer carries its replica's queries in flight and
milliseconds a query; the control plane tells every asker the state of every replica ten times a second, 20..120 ms old;
a probe takes one round trip and some of the replica's compute.

Percentiles are of answered queries; *in time*: the share of all that were answered within the deadline.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from benchmarks.common import finish, run_main, say
from controller.engines.inference.policies import POLICIES, policy
from controller.values.queries import Probed, Replica

LOADS = (0.5, 0.8, 0.95)
SITES = 4
HOT = 4.0
HOT_S = 10.0
QUEUE = 64
GAMMA_SHAPE = 4.0
TOLD_EVERY_S = 0.1
TOLD_AGE_S = (0.02, 0.12)
RATE_S = 1.0  # over which a replica counts its arrivals
SMOOTH = 0.05  # of a replica's own figure of its milliseconds a query
WARM_UP_S = 5.0


class World(msgspec.Struct, kw_only=True, frozen=True):
    """What is simulated."""

    service_ms: tuple[float, ...] = (30.0, 45.0, 70.0, 110.0)
    layout: int = 0  # seed of the paths
    askers_per_site: int = 2
    load: float = 0.8
    duration_s: float = 300.0
    deadline_ms: float = 400.0
    probe_cost_ms: float = 0.3

    def paths_s(self) -> list[list[float]]:
        """Return the one-way seconds from each site to each replica: 1 ms to the site's own, else 4..20."""
        rng = random.Random(self.layout)
        replicas = range(len(self.service_ms))
        return [[1e-3 if r % SITES == s else rng.uniform(4e-3, 20e-3) for r in replicas] for s in range(SITES)]

    def queries(self, seed: int) -> Iterator[tuple[float, int, float]]:
        """Yield (second, asker, work) of every query, by time; work is 1 in the mean."""
        rng = random.Random(seed)
        rate = self.load * sum(1e3 / s for s in self.service_ms)
        now_s = rng.expovariate(rate)
        while now_s < self.duration_s:
            hot = int(now_s / HOT_S + seed) % SITES
            site = rng.choices(range(SITES), [HOT if s == hot else 1.0 for s in range(SITES)])[0]
            asker = site * self.askers_per_site + rng.randrange(self.askers_per_site)
            yield now_s, asker, rng.gammavariate(GAMMA_SHAPE, 1 / GAMMA_SHAPE)
            now_s += rng.expovariate(rate)


class State(msgspec.Struct, frozen=True):
    """What a replica says of itself at one moment."""

    in_flight: int
    service_ms: float
    arrivals_per_s: float
    at_s: float


class Server:
    """A replica: one query at a time, first come first served."""

    def __init__(self, service_ms: float) -> None:
        self.mean_ms = self.service_ms = service_ms
        self.in_flight = 0
        self.free_s = 0.0
        self._arrived: deque[float] = deque()
        self._latencies: dict[int, deque[float]] = {}

    def take(self, work: float, now_s: float) -> float | None:
        """Queue a query; return when it will be done, None: refused."""
        if self.in_flight > QUEUE:
            return None
        self._arrived.append(now_s)
        self.in_flight += 1
        service_ms = work * self.mean_ms
        self.service_ms += SMOOTH * (service_ms - self.service_ms)
        self.free_s = max(self.free_s, now_s) + service_ms / 1e3
        return self.free_s

    def done(self, rif: int, came_s: float, now_s: float) -> None:
        """Finish a query that found ``rif`` before it."""
        self.in_flight -= 1
        self._latencies.setdefault(rif, deque(maxlen=16)).append(1e3 * (now_s - came_s))

    def state(self, now_s: float) -> State:
        """Return what the replica says now."""
        while self._arrived and self._arrived[0] < now_s - RATE_S:
            self._arrived.popleft()
        return State(self.in_flight, self.service_ms, len(self._arrived) / min(RATE_S, max(0.1, now_s)), now_s)

    def probe(self, cost_ms: float, now_s: float) -> tuple[int, float]:
        """Answer a probe: in flight, and the median of the latencies measured nearest to that."""
        self.free_s = max(self.free_s, now_s) + cost_ms / 1e3
        if not self._latencies:
            return self.in_flight, (self.in_flight + 1) * self.service_ms
        nearest = min(self._latencies, key=lambda rif: abs(rif - self.in_flight))
        return self.in_flight, statistics.median(self._latencies[nearest])


class Asker:
    """Sends each query where its policy says, and keeps what it is told."""

    def __init__(self, name: str, world: World, paths_s: Sequence[float], seed: int) -> None:
        self.policy = policy(name, random.Random(seed))
        self.paths_s = paths_s
        self.told = [
            Replica(label=i, path_ms=1e3 * p, service_ms=s)
            for i, (p, s) in enumerate(zip(paths_s, world.service_ms, strict=True))
        ]
        self._sent_s: list[deque[float]] = [deque() for _ in self.told]

    def choose(self, now_s: float) -> int:
        """Return the replica for a query that is sent now."""
        label = self.policy.choose(self.told, now_s).label
        self.told[label].own += 1
        self.told[label].sent_since += 1
        self._sent_s[label].append(now_s)
        return label

    def learn(self, label: int, state: State) -> None:
        """Take what a replica said, unless something later is known."""
        told, sent_s = self.told[label], self._sent_s[label]
        if state.at_s < told.told_s:
            return
        told.in_flight, told.service_ms, told.told_s = state.in_flight, state.service_ms, state.at_s
        told.arrivals_per_s = state.arrivals_per_s
        while sent_s and sent_s[0] <= state.at_s:
            sent_s.popleft()
        told.sent_since = len(sent_s)


class Run:
    """One policy in one world with one seed."""

    def __init__(self, name: str, world: World, seed: int) -> None:
        self.world = world
        self.servers = [Server(s) for s in world.service_ms]
        paths_s = world.paths_s()
        sites = [site for site in range(SITES) for _ in range(world.askers_per_site)]
        self.askers = [Asker(name, world, paths_s[site], 1000 * seed + i) for i, site in enumerate(sites)]
        self.responses_ms: list[float] = []
        self.refused = 0
        self.now_s = 0.0
        self._rng = random.Random(seed + 7)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._queries = world.queries(seed)

    def run(self) -> Run:
        """Simulate until the last answer."""
        self._next_query()
        self._at(TOLD_EVERY_S, self._tell)
        while self._events:
            self.now_s, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        return self

    def _at(self, at_s: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), what, arguments))

    def _next_query(self) -> None:
        query = next(self._queries, None)
        if query:
            self._at(query[0], self._ask, query[1], query[2])

    def _ask(self, number: int, work: float) -> None:
        asker = self.askers[number]
        for label in asker.policy.to_probe(asker.told, self.now_s):
            self._at(self.now_s + asker.paths_s[label], self._probe, asker, label)
        label = asker.choose(self.now_s)
        self._at(self.now_s + asker.paths_s[label], self._arrive, asker, label, work, self.now_s)
        self._next_query()

    def _arrive(self, asker: Asker, label: int, work: float, sent_s: float) -> None:
        server = self.servers[label]
        rif = server.in_flight
        done_s = server.take(work, self.now_s)
        if done_s is None:
            self._at(self.now_s + asker.paths_s[label], self._refuse, asker, label, sent_s, server.state(self.now_s))
        else:
            self._at(done_s, self._done, asker, label, sent_s, rif, self.now_s)

    def _done(self, asker: Asker, label: int, sent_s: float, rif: int, came_s: float) -> None:
        server = self.servers[label]
        server.done(rif, came_s, self.now_s)
        self._at(self.now_s + asker.paths_s[label], self._answer, asker, label, sent_s, server.state(self.now_s))

    def _answer(self, asker: Asker, label: int, sent_s: float, state: State) -> None:
        response_ms = 1e3 * (self.now_s - sent_s)
        asker.told[label].own -= 1
        asker.learn(label, state)
        asker.policy.answered(label, response_ms, self.now_s)
        if sent_s >= WARM_UP_S:
            self.responses_ms.append(response_ms)

    def _refuse(self, asker: Asker, label: int, sent_s: float, state: State) -> None:
        asker.told[label].own -= 1
        asker.learn(label, state)
        asker.policy.failed(label, self.now_s)
        self.refused += sent_s >= WARM_UP_S

    def _probe(self, asker: Asker, label: int) -> None:
        in_flight, latency_ms = self.servers[label].probe(self.world.probe_cost_ms, self.now_s)
        back_s = self.now_s + asker.paths_s[label]
        self._at(back_s, self._probed, asker, label, in_flight, latency_ms)

    def _probed(self, asker: Asker, label: int, in_flight: int, latency_ms: float) -> None:
        asker.policy.probed(Probed(label=label, in_flight=in_flight, latency_ms=latency_ms, at_s=self.now_s))

    def _tell(self) -> None:
        states = [server.state(self.now_s) for server in self.servers]
        for asker in self.askers:
            self._at(self.now_s + self._rng.uniform(*TOLD_AGE_S), self._told, asker, states)
        if self.now_s + TOLD_EVERY_S < self.world.duration_s:
            self._at(self.now_s + TOLD_EVERY_S, self._tell)

    def _told(self, asker: Asker, states: Sequence[State]) -> None:
        for label, state in enumerate(states):
            asker.learn(label, state)


def figures(name: str, world: World, seeds: Sequence[int]) -> dict[str, float]:
    """Return a policy's figures over all seeds together."""
    runs = [Run(name, world, seed).run() for seed in seeds]
    responses_ms = np.concatenate([r.responses_ms for r in runs])
    refused = sum(r.refused for r in runs)
    asked = len(responses_ms) + refused
    p50, p95, p99 = np.percentile(responses_ms, [50, 95, 99])
    return {
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "in_time": round(float((responses_ms <= world.deadline_ms).sum()) / asked, 4),
        "refused": round(refused / asked, 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate every policy at every load; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.policies_sim", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS), help="shares of what all can answer")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--service-ms", nargs="+", type=float, default=list(World().service_ms), help="a query's, each")
    parser.add_argument("--layout", type=int, default=World().layout, help="seed of the path delays")
    parser.add_argument("--askers-per-site", type=int, default=World().askers_per_site)
    parser.add_argument("--duration-s", type=float, default=World().duration_s)
    parser.add_argument("--deadline-ms", type=float, default=World().deadline_ms)
    parser.add_argument("--probe-cost-ms", type=float, default=World().probe_cost_ms)
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"bench": "policies_sim", "simulated": True, "seeds": options.seeds}
    say(f"{'load':>5} {'policy':<13} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'in time':>8} {'refused':>8}")
    for load in options.loads:
        world = World(
            service_ms=tuple(options.service_ms),
            layout=options.layout,
            askers_per_site=options.askers_per_site,
            load=load,
            duration_s=options.duration_s,
            deadline_ms=options.deadline_ms,
            probe_cost_ms=options.probe_cost_ms,
        )
        rows = {name: figures(name, world, options.seeds) for name in options.policies}
        for name, row in rows.items():
            say(
                f"{load:>5} {name:<13} {row['p50_ms']:>8.1f} {row['p95_ms']:>8.1f} {row['p99_ms']:>8.1f}"
                f" {row['in_time']:>8.2%} {row['refused']:>8.2%}"
            )
        result[f"load_{load:g}"] = rows
    finish(result)
    return 0


if __name__ == "__main__":
    run_main(main)
