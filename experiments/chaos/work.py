"""Continuous work on a standing testbed while faults happen: jobs one after the other, queries, parcels.

What the network refuses, or fails with a reason, is part of the trade: it is counted, and the next work begins.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from experiments.chaos.oracle import Ledger
from experiments.errors import ExperimentError, RunFailed
from experiments.load import put
from experiments.run import GRACE_S, deploy, submit
from experiments.testbed.testbed import Bed
from packets.security.clock import unix_s

QUERY_S: Final = 0.3
PARCEL_S: Final = 1.5
PARCEL_BYTES: Final = (3_000, 120_000, 700_000)
PARCEL_ROLES: Final = ("compute", "mpvu", "mdfp", "data")
PAUSE_S: Final = 0.5  # after work that was not taken
UNSERVED: Final = 3  # queries in a row: the model is deployed anew


class Work:
    """Works from ``start`` to ``stop``. ``done``: how many of what ended how; ``after_job``: told how many jobs."""

    def __init__(self, bed: Bed, ledger: Ledger, after_job: Callable[[int], None]) -> None:
        self.bed, self.ledger = bed, ledger
        self.done: Counter[str] = Counter()
        self.happened: list[tuple[float, str]] = []  # wall clock, what: for the picture
        self.jobs = 0
        self._after_job = after_job
        self._over = threading.Event()
        self._home: list[int] = []
        self._unserved = UNSERVED
        works = {"jobs": self._job, "queries": self._query, "parcels": self._parcel}
        self._threads = [
            threading.Thread(target=self._again, args=(name, work), name=name, daemon=True)
            for name, work in works.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Begin nothing more; returns when what was begun has ended, or the time is up."""
        self._over.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _again(self, name: str, work: Callable[[int], str]) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                came = work(number)
            except (RunFailed, ExperimentError) as error:
                came = f"{name} not taken"
                self.bed.hub.emit("chaos.refused", work=name, reason=str(error)[:300])
                self._over.wait(PAUSE_S)
            self.done[came] += 1
            self.happened.append((unix_s(), came))

    # --- jobs

    def _job(self, number: int) -> str:
        """Submit a job, see it end, deploy its model when queries go unserved."""
        wanted = self.bed.scenario.jobs[(number - 1) % len(self.bed.scenario.jobs)]
        reply = submit(self.bed, msgspec.structs.replace(wanted, seed=self.bed.scenario.seed + number))
        if not reply["admitted"]:
            self._over.wait(PAUSE_S)
            return "jobs rejected"
        object_id = int(reply["object_id"])
        came = self._ended(object_id, wanted.deadline_s + GRACE_S)
        self.jobs += 1
        if came == "jobs home" and self._unserved >= UNSERVED:
            self._unserved = 0
            with contextlib.suppress(RunFailed):
                deploy(self.bed, object_id)
                self.done["models deployed"] += 1
        self._after_job(self.jobs)
        return came

    def _ended(self, object_id: int, timeout_s: float) -> str:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if object_id in self.ledger.returned:
                return "jobs home"
            if object_id in self.ledger.ended:
                return "jobs home" if self.ledger.ended[object_id].startswith("finished") else "jobs failed"
            time.sleep(0.05)
        return "jobs overdue"

    # --- queries and parcels

    def _query(self, number: int) -> str:
        askers = self.bed.terminals("query_owner")
        if not askers or not self.done["models deployed"]:
            self._over.wait(PAUSE_S)
            return "queries waited"
        group = self.bed.scenario.query.group if self.bed.scenario.query else ""
        try:
            put(self.bed, askers[number % len(askers)], group, of_load=True)
            self._unserved = 0
        except RunFailed:
            self._unserved += 1
            return "queries unanswered"
        finally:
            self._over.wait(QUERY_S)
        return "queries answered"

    def _parcel(self, number: int) -> str:
        """Send bytes whose digest is known to the nearest of a role."""
        senders = [h.name for h in self.bed.plan.hosts if h.role in ("data", "model_owner", "query_owner")]
        command: dict[str, Any] = {
            "bytes": PARCEL_BYTES[number % len(PARCEL_BYTES)], "role": PARCEL_ROLES[number % len(PARCEL_ROLES)]
        }  # fmt: skip
        try:
            sent = self.bed.tell(senders[number % len(senders)], "send", 10.0, **command)
        finally:
            self._over.wait(PARCEL_S)
        self.ledger.sent[int(sent["object_id"])] = str(sent["sha256"])
        return "parcels sent"
