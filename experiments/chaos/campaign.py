"""A campaign: faults by their schedule on a network that works, and after each the question whether all holds."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.chaos import flows, growth, oracle
from experiments.chaos.faults import Hand, alive
from experiments.chaos.oracle import Ledger, Violation, What
from experiments.chaos.plan import Fault
from experiments.chaos.traffic import Traffic
from experiments.chaos.work import Work
from experiments.errors import ExperimentError, RunFailed
from experiments.report.report import Outcome
from experiments.run import GRACE_S as JOB_GRACE_S
from experiments.run import come_home, deploy, submit
from experiments.testbed.testbed import Bed
from packets.events import Event
from packets.security.clock import unix_s
from topologies.errors import TopologyError

GRACE_S: Final = 20.0  # after the last fault's end until every pair of terminals talks
LOOK_S: Final = 2.0  # between two looks while faults last
AGAIN_S: Final = 0.4  # between the two looks that a finding has to be in
SETTLED_S: Final = 3.0  # an object that was launched longer ago has its rules
FORGOTTEN: Final = Event(kind="", source="", t_unix_s=0.0, data={})
Say = Callable[[str], None]


class Done(msgspec.Struct):
    """A fault as it was: when it began and ended (seconds of the campaign), what stopped it from being done, and how
    long after its end all terminals reached each other (None: nobody asked before the next one)."""

    fault: Fault
    began_s: float = 0.0
    ended_s: float = 0.0
    trouble: str = ""
    recovered_s: float | None = None


class Campaign:
    """Runs on a bed that is up. ``violations`` is what the oracle found, ``done`` the faults so far."""

    def __init__(self, bed: Bed, faults: Sequence[Fault], say: Say, *, grace_s: float = GRACE_S) -> None:
        self.bed, self.faults, self.grace_s, self._say = bed, faults, grace_s, say
        self.hand, self.ledger = Hand(bed), Ledger()
        self.done: list[Done] = []
        self.violations: list[Violation] = []
        self.seconds = 0.0
        self.samples = bed.folder.path / "memory.csv"
        self._known: set[str] = set()
        self._seen: dict[int, str] = {}
        self.jobs_at_s: list[tuple[int, float]] = []
        self._active = 0
        self._healed_s = 0.0
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._forgotten = 0
        self.began_unix_s = unix_s()
        bed.hub.add_listener(self._hear, "chaos")

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _hear(self, event: Event) -> None:
        self.ledger.hear(event)
        self.hand.hear(event)

    # --- the course of it

    def run(self) -> None:
        """Work, let the faults come, and look; returns when all work has ended."""
        for event in list(self.bed.events):
            self.hand.hear(event)
        self._one_job()
        with self.samples.open("w", newline="") as file:
            csv.writer(file).writerow(growth.Sample.__struct_fields__)
        self.traffic, self.work = Traffic(self.bed), Work(self.bed, self.ledger, self._after_job)
        self.traffic.start()
        try:
            if cut := self.traffic.pairs_cut(self.grace_s):
                raise RunFailed(f"the network is broken before any fault: {', '.join(cut[:3])} do not reach each other")
            self.work.start()
            self._began_s, self.began_unix_s = time.monotonic(), unix_s()
            self._faults()
            self._finish()
        finally:
            self.work.stop(0.0)
            self.traffic.stop()
            self.seconds = self.now_s

    def _one_job(self) -> None:
        """Have one job come home and its model deployed, so that there is something to lose."""
        job = self.bed.scenario.jobs[0]
        outcome = Outcome(seed=job.seed, first_event=len(self.bed.events))
        reply = submit(self.bed, job)
        if not reply["admitted"]:
            raise ExperimentError(f"scenario {self.bed.scenario.name}: its first job is not admitted; chaos needs one")
        outcome.object_id = reply["object_id"]
        come_home(self.bed, job, outcome)
        if self.bed.terminals("mdfp"):
            deploy(self.bed, outcome.object_id)

    def _faults(self) -> None:
        late_s = 0.0
        for fault in self.faults:
            while self.now_s < fault.at_s + late_s:
                self._meanwhile(fault.at_s + late_s)
            late_s = max(late_s, self.now_s - fault.at_s)
            done = Done(fault)
            self.done.append(done)
            with self._lock:
                self._active += 1
            threading.Thread(target=self._befall, args=(done,), name=f"fault-{fault.number}", daemon=True).start()
            time.sleep(0.05)
        end = time.monotonic() + max((f.seconds for f in self.faults), default=0.0) + 60.0
        while self._active and time.monotonic() < end:
            self._meanwhile(self.now_s + LOOK_S)
        self._settle()

    def _befall(self, done: Done) -> None:
        """One fault from its beginning to its end, on a thread of its own."""
        fault, done.began_s = done.fault, round(self.now_s, 2)
        self.bed.hub.emit("chaos.fault", number=fault.number, text=str(fault), seconds=fault.seconds)
        try:
            mend = self.hand.begin(fault)
            time.sleep(fault.seconds)
            mend()
        except (RunFailed, ExperimentError, TopologyError, OSError, AssertionError) as error:
            done.trouble = " ".join(str(error).split())[:200] or type(error).__name__
        finally:
            done.ended_s = round(self.now_s, 2)
            with self._lock:
                self._active -= 1
                self._healed_s = self.now_s
        self._say(
            f"{fault.number:>4}/{len(self.faults)} {done.began_s:7.1f} s  {fault} for {fault.seconds:.1f} s"
            + (f"; not done: {done.trouble}" if done.trouble else "")
        )

    def _meanwhile(self, until_s: float) -> None:
        """Look at what must hold now; where nothing is broken any more, at all of it."""
        if self.done and not self._active and self.done[-1].recovered_s is None:
            self._settle()
            return
        self.bed.check()
        self._note(self._confirmed(loops_only=True))
        self._said()
        time.sleep(max(0.0, min(LOOK_S, until_s - self.now_s)))

    def _finish(self) -> None:
        self.work.stop(max(job.deadline_s for job in self.bed.scenario.jobs) + JOB_GRACE_S + 30.0)
        self._settle()
        self._note(self.ledger.lost(unix_s(), 0.0))
        self._note(growth.grown(self.slopes()))

    # --- what must hold

    def _settle(self) -> None:
        """All faults are over: everybody has to reach everybody within the grace time, by rules that lead there."""
        cut = self.traffic.pairs_cut(self.grace_s)
        if self.done and not self._active:
            self.done[-1].recovered_s = round(self.now_s - self._healed_s, 2)
        silence = f"no datagram in {self.grace_s:g} s after all was mended"
        self._note(oracle.gathered({f"{pair}: {silence}": "black hole" for pair in cut}))
        if not self._active:
            self._note(self._confirmed(loops_only=False))
        self._said()

    def _confirmed(self, *, loops_only: bool) -> dict[str, What]:
        """Return what two looks at the rules of all switches have in common."""
        before = self._by_rules(loops_only)
        if not before:
            return {}
        time.sleep(AGAIN_S)
        return oracle.gathered(oracle.lasting(before, self._by_rules(loops_only)))

    def _by_rules(self, loops_only: bool) -> dict[str, What]:
        tables = flows.read([s.name for s in self.bed.plan.switches])
        found = oracle.astray(self.bed.plan, tables)
        if loops_only:
            return {text: what for text, what in found.items() if what == "loop"}
        settled = self.ledger.settled(unix_s() - SETTLED_S)
        return found | oracle.label_ways(self.bed.plan, tables, settled)

    def _said(self) -> None:
        """Look at what was said and seen: objects, digests, processes, ordinary datagrams."""
        self._note(self.ledger.lost(unix_s(), JOB_GRACE_S))
        self._note(self.ledger.bad() | self.ledger.in_two_places())
        self._seen |= self.processes()
        living = alive(self._seen)
        self._note(oracle.died(self._seen, living, self.hand.killed))
        self._seen = {pid: name for pid, name in self._seen.items() if pid in living}
        self._note(dict(self.traffic.found))

    def _note(self, found: Mapping[str, What]) -> None:
        for text, what in found.items():
            if text not in self._known:
                self._known.add(text)
                last = self.done[-1].fault.number if self.done else 0
                violation = Violation(what, text, round(self.now_s, 1), last)
                self.violations.append(violation)
                self.bed.hub.emit("chaos.violation", what=what, evidence=text, fault=last)
                self._say(f"VIOLATION {violation}")

    # --- memory

    def processes(self) -> dict[int, str]:
        """Return the processes of the run, {process id: name}: children that are not started again, agents, this one.

        A control centre or speaker that is between two lives is not among them.
        """
        names = {os.getpid(): "main"} | self.hand.agents()
        for child in self.bed.children:
            if not child.mortal or child.process.poll() is None:
                names[child.process.pid] = child.name
        return names

    def happened(self) -> list[tuple[float, str]]:
        """Return what work came to what, and when (seconds of the campaign)."""
        return [(t - self.began_unix_s, what) for t, what in self.work.happened] if hasattr(self, "work") else []

    def _after_job(self, jobs: int) -> None:
        self.jobs_at_s.append((jobs, round(self.now_s, 1)))
        with self.samples.open("a", newline="") as file:
            csv.writer(file).writerows(msgspec.structs.astuple(s) for s in growth.sample(self.processes(), jobs))
        upto = len(self.bed.events) - 2000  # who waits for an event looks at those after its mark
        while self._forgotten < upto:
            self.bed.events[self._forgotten] = FORGOTTEN
            self._forgotten += 1

    def slopes(self) -> list[growth.Slope]:
        """Return what each process gained."""
        return growth.slopes(read_samples(self.samples)) if self.samples.exists() else []


def read_samples(path: Path) -> list[growth.Sample]:
    """Read the samples of a campaign."""
    with path.open(newline="") as file:
        return [msgspec.convert(row, growth.Sample, strict=False) for row in csv.DictReader(file)]


def result(campaign: Campaign, seed: int) -> dict[str, Any]:
    """Return what there is to tell of a campaign, for ``chaos.json``."""
    done = [d for d in campaign.done if not d.trouble]
    recovered = sorted(d.recovered_s for d in done if d.recovered_s is not None)
    work = getattr(campaign, "work", None)
    traffic = getattr(campaign, "traffic", None)
    return {
        "scenario": campaign.bed.scenario.name, "seed": seed, "seconds": round(campaign.seconds, 1),
        "faults": len(done), "not_done": len(campaign.done) - len(done), "planned": len(campaign.faults),
        "violations": [msgspec.to_builtins(v) for v in campaign.violations],
        "recovered_p50_s": recovered[len(recovered) // 2] if recovered else None,
        "recovered_max_s": recovered[-1] if recovered else None,
        "jobs": work.jobs if work else 0, "work": dict(sorted(work.done.items())) if work else {},
        "datagrams_sent": traffic.sent if traffic else 0, "datagrams_received": traffic.received if traffic else 0,
        "parcels_unheard": oracle.unheard(campaign.ledger),
        "growth": [msgspec.to_builtins(s) for s in campaign.slopes()],
    }  # fmt: skip
