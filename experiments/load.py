"""A load of queries on a network that stands: all its query owners begin together, are followed, ended, and counted."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError, RunFailed
from experiments.report.happened import happened
from experiments.report.load import summarise
from experiments.scenarios.queries import QueriesSpec, check_policy
from experiments.testbed.testbed import Bed
from hosts.inference import asked
from hosts.inference.load import STEPS
from packets.events import Event
from packets.labels import object_label
from packets.queries import Need, query_label, variant_task
from packets.security.clock import unix_s

AHEAD_S = 0.5  # until all askers have heard when to begin
TAIL_S = 12.0  # after its end: as long as an asker waits for an answer, and a little
ANSWER_S = 20.0
COUNTS = ("asked", "answered", "refused", "lost", "under_way")
Second = dict[str, Any]
Tell = Callable[[Second], None]


class RunningLoad:
    """A load that has begun. ``ExperimentError``: what is asked for cannot be; ``RunFailed``: nobody answers its class,
    for the reason that Q-FAM gives.
    """

    def __init__(self, bed: Bed, spec: QueriesSpec, seed: int = 0) -> None:
        check_policy(spec.policy)
        self.bed, self.spec = bed, spec
        self.askers = askers_of(bed)
        self.stopped = False
        self.silent: dict[str, str] = {}
        self.reasons: Counter[str] = Counter()
        self._knock()
        self._mark = len(bed.events)
        self._start_unix_s = start_unix_s = unix_s() + AHEAD_S
        specs = asker_specs(spec, {a: _kas(bed, a) for a in self.askers}, seed)
        self._numbers = self._all(
            lambda name: bed.tell(name, "load", ANSWER_S, spec=specs[name] | {"start_unix_s": start_unix_s})["load"]
        )
        if not self._numbers:
            raise RunFailed("no query owner began: " + "; ".join(self.silent.values()))

    def _knock(self) -> None:
        """Ask one query from each K-AS first: where none is answered, there is nothing to measure."""
        kas = {_kas(self.bed, a): a for a in reversed(self.askers)}
        task, need = variant_task(self.bed.scenario.data.name, self.spec.way), msgspec.to_builtins(self.spec.need)
        refused: dict[int, str] = {}

        def one(at: int) -> None:
            try:
                put(self.bed, kas[at], self.spec.group, need=need, task=task, of_load=True)
            except RunFailed as error:
                refused[at] = str(error)

        with ThreadPoolExecutor(len(kas)) as pool:
            list(pool.map(one, kas))
        if len(refused) == len(kas):
            raise RunFailed(next(iter(refused.values())))
        self.reasons.update(f"K-AS {at}: {reason}" for at, reason in sorted(refused.items()))

    def _all(self, do: Callable[[str], Any]) -> dict[str, Any]:
        """Do something at every asker that is still heard of; one that fails is left out from then on."""
        found: dict[str, Any] = {}

        def one(name: str) -> None:
            try:
                found[name] = do(name)
            except RunFailed as error:
                self.silent[name] = str(error)

        with ThreadPoolExecutor(len(self.askers)) as pool:
            list(pool.map(one, [a for a in self.askers if a not in self.silent]))
        return {a: found[a] for a in self.askers if a in found}

    def follow(self, tell: Tell = lambda second: None) -> None:
        """Return when all askers are done; ``tell`` is given each second what all of them did in it."""
        end = time.monotonic() + AHEAD_S + self.spec.seconds + TAIL_S
        at, number, next_s = self._mark, 0, time.monotonic() + AHEAD_S + 1.25
        over: set[str] = set()
        seen: list[Event] = []
        while not over >= self._numbers.keys() and time.monotonic() < end:
            events = self.bed.events[at:]
            at += len(events)
            mine = [e for e in events if e.data.get("node") in self._numbers]
            over |= {str(e.data["node"]) for e in mine if e.kind == "load.over"}
            seen += [e for e in mine if e.kind == "load.second"]
            if time.monotonic() >= next_s:
                number, next_s = number + 1, next_s + 1.0
                tell({"second": number, **merged([e.data for e in seen])})
                seen.clear()
            self.bed.check()
            time.sleep(0.05)
        if seen:
            tell({"second": number + 1, **merged([e.data for e in seen])})

    def stop(self) -> None:
        """Have all askers put no more queries."""
        self.stopped = True
        self._all(lambda name: self.bed.tell(name, "load_stop", ANSWER_S, load=self._numbers[name]))

    def result(self, file: Path) -> dict[str, Any]:
        """Return what came of it (``experiments.report.load``); ``file`` gets a row for each query."""
        rows: list[asked.Row] = []
        told = self._all(
            lambda name: self.bed.tell(name, "load_result", ANSWER_S, load=self._numbers[name], wait_s=5.0)
        )
        for answer in told.values():
            self.reasons.update(answer.get("reasons", {}))
            if "file" in answer:
                rows += asked.read(Path(answer["file"]))
        rows.sort()
        asked.write(file, rows)
        ages = [a["known_age_ms"] for a in told.values() if a.get("known_age_ms") is not None]
        return {
            **msgspec.to_builtins(self.spec),
            "askers": self.askers, "stopped": self.stopped, "silent": self.silent,
            "reasons": dict(self.reasons.most_common(8)), "file": str(file),
            "known_age_ms": round(sum(ages) / len(ages), 2) if ages else None,
            **summarise(rows, self.spec.need.deadline_ms, nodes_of(self.bed.events)),
            "happened": happened(self.bed.events[self._mark :], self._start_unix_s),
        }  # fmt: skip


def put(
    bed: Bed,
    asker: str,
    group: str,
    *,
    text: str = "",
    need: Mapping[str, Any] | None = None,
    answer_to: str = "",
    task: str = "",
    of_load: bool = False,
    aats: bool = False,
) -> dict[str, Any]:
    """Put one query at an asker; return what came of it. Tells the events of which class it was, and why it was refused
    (an asker alone knows); ``RunFailed`` then. ``aats``: the asker finds the model itself.
    """
    task, wanted = task or bed.scenario.data.name, msgspec.convert(need or {}, Need)
    mark, refused = len(bed.events), ""
    try:
        return bed.tell(asker, "query", ANSWER_S, task=task, group=group, text=text, answer_to=answer_to, aats=aats,
                        need=msgspec.to_builtins(wanted))  # fmt: skip
    except RunFailed as error:
        refused = str(error).removeprefix(f"{asker} refused 'query': ")
        raise
    finally:
        with contextlib.suppress(RunFailed):  # what was wrong input was not sent at all
            sent = bed.wait_event("query.sent", 1.0, mark, node=asker).data
            bed.hub.emit(
                "query.classed", id=sent["id"], node=asker, task=task, label=query_label(task, wanted),
                need=msgspec.to_builtins(wanted), group=group, refused=refused,
                of_load=of_load,
            )  # fmt: skip


def askers_of(bed: Bed) -> list[str]:
    """Return the query owners; ``ExperimentError`` when there is none."""
    askers = bed.terminals("query_owner")
    if not askers:
        raise ExperimentError(f"scenario {bed.scenario.name}: no K-AS has a query_owner; add `query_owner: 1` to one")
    return askers


def _kas(bed: Bed, name: str) -> int:
    return next(h.kas for h in bed.plan.hosts if h.name == name)


def asker_specs(spec: QueriesSpec, kas: Mapping[str, int], seed: int) -> dict[str, dict[str, Any]]:
    """Return what each asker is told (``hosts.inference.load.LoadSpec``). ``kas``: that of each asker."""
    places = sorted(set(kas.values()))
    pattern = {"kind": spec.pattern, "rate_per_s": spec.rate_per_s, "peak": spec.peak, "period_s": spec.period_s}
    common = {
        "pattern": pattern, "seconds": spec.seconds, "policy": spec.policy, "group": spec.group, "seed": seed,
        "need": msgspec.to_builtins(spec.need), "askers": len(kas), "places": len(places), "way": spec.way,
        "samples": spec.samples,
    }  # fmt: skip
    return {
        name: common | {"asker": number, "place": places.index(at), "askers_here": sum(k == at for k in kas.values())}
        for number, (name, at) in enumerate(kas.items())
    }


def nodes_of(events: Sequence[Event]) -> dict[int, tuple[str, str]]:
    """Return (MDFP, task) of each deployed model, by its label."""
    deployed = [e.data for e in events if e.kind == "model.deployed"]
    return {object_label(int(d["object_id"])): (str(d["node"]), str(d.get("task", ""))) for d in deployed}


def merged(told: Sequence[Mapping[str, Any]]) -> Second:
    """Return the sum of what askers told (``load.second``), with percentiles of latency over all of them (ms)."""
    counts = {name: sum(int(t.get(name, 0)) for t in told) for name in COUNTS}
    buckets: Counter[float] = Counter()
    for one in told:
        buckets.update({float(le): int(n) for le, n in one.get("latency_buckets", {}).items()})
    return counts | {name: percentile(buckets, share) for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95))}


def percentile(buckets: Mapping[float, int], share: float) -> float | None:
    """Return a percentile of counts by their buckets' upper bounds, evenly spread within one; None of nothing."""
    wanted, seen = share * sum(buckets.values()), 0
    for bound in sorted(buckets):
        seen += buckets[bound]
        if seen >= wanted and buckets[bound]:
            return round(float(bound * 10 ** ((wanted - seen) / buckets[bound] / STEPS)), 2)
    return None


def run_load(bed: Bed, spec: QueriesSpec, seed: int, file: Path, tell: Tell) -> dict[str, Any]:
    """Carry a whole load out; return what came of it."""
    load = RunningLoad(bed, spec, seed)
    load.follow(tell)
    return load.result(file)


def told_by(bed: Bed) -> Tell:
    """Return who tells each second of a load as an event of the run."""
    return lambda second: bed.hub.emit("load.progress", **second)
