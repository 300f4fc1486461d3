"""What the other jobs of a home control centre take of the places on offer, for the next plan to go around."""

from __future__ import annotations

from collections.abc import Iterable

from controller.engines.bookings import bookings_of
from controller.engines.types import Booking, Load
from controller.jobs import Job


def load_of(jobs: Iterable[Job], planned: Job, now_s: float) -> Load:
    """Return the visits under way of all jobs but ``planned``, in seconds from now.

    Only the visit that is under way is a promise: what comes after it is planned anew when it has been measured. A
    visit that takes longer than was predicted books nothing any more.
    """
    bookings: list[Booking] = []
    for job in jobs:
        latest = job.decisions.get(max(job.decisions, default=-1))
        if job is planned or job.over or latest is None or latest.plan is None or latest.concluded:
            continue
        bookings += bookings_of(latest.plan, latest.decided_s - now_s, steps=1)
    return Load(bookings=bookings)
