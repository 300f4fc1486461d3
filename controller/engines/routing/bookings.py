"""Several models at once: what one job's plan takes of rendezvous and links, another job's plan has to go around.

A rendezvous trains one model at a time (its facility has one queue), so a visit that finds it taken waits for the first
gap that is long enough, or another rendezvous is better by then; links are shared, so a way that other jobs fill is
slower. Both are inputs of a plan (``Load``): which jobs there are, and what they promised, the caller knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller.values.decisions import Booking, Load, Option, Plan

LEAST_SHARE = 0.05  # of a link: fair sharing leaves everyone something
Array = npt.NDArray[np.float64]


def place_of(option: Option) -> str:
    """Return the name under which an option's facility is booked."""
    return option.place or option.handle


def bookings_of(plan: Plan, start_s: float = 0.0, steps: int | None = None) -> list[Booking]:
    """Return what a plan that starts ``start_s`` from now will take (its first ``steps`` visits; None: all)."""
    taken: list[Booking] = []
    for step in plan.steps[:steps]:
        end_s = start_s + step.cost_s
        taken.append(Booking(place=place_of(step.option), start_s=start_s + step.wait_s, end_s=end_s))
        start_s = end_s
    return [b for b in taken if b.end_s > 0]


def joined(loads: Iterable[Load]) -> Load:
    """Return the load of several jobs together; shares of a way multiply."""
    bookings: list[Booking] = []
    share: dict[int, float] = {}
    for load in loads:
        bookings += load.bookings
        for kas, left in load.way_share.items():
            share[kas] = share.get(kas, 1.0) * left
    return Load(bookings=bookings, way_share=share)


def later(load: Load, by_s: float) -> Load:
    """Return a load as it looks ``by_s`` seconds later."""
    moved = [Booking(place=b.place, start_s=b.start_s - by_s, end_s=b.end_s - by_s) for b in load.bookings]
    return msgspec.structs.replace(load, bookings=[b for b in moved if b.end_s > 0])


def share_left(load: Load, kas: int) -> float:
    """Return the share of the rate into a K-AS that a plan may count on, ``LEAST_SHARE``..1."""
    return min(1.0, max(LEAST_SHARE, load.way_share.get(kas, 1.0)))


def windows(load: Load, options: Sequence[Option]) -> Array:
    """Return when each option is taken (options, windows, 2), start and end, sorted by start; none: both ``inf``."""
    by_place: dict[str, list[tuple[float, float]]] = {}
    for b in sorted(load.bookings, key=lambda b: (b.start_s, b.end_s)):
        by_place.setdefault(b.place, []).append((b.start_s, b.end_s))
    longest = max((len(w) for w in by_place.values()), default=0)
    found = np.full((len(options), longest, 2), np.inf)
    for i, option in enumerate(options) if by_place else ():
        for j, window in enumerate(by_place.get(place_of(option), ())):
            found[i, j] = window
    return found


def first_gap(start_s: Array, needed_s: Array, taken: Array) -> Array:
    """Return when a visit can begin that could begin at ``start_s``: (..., options) each, ``taken`` as ``windows``.

    Sorted by start, so one pass suffices: a window that is run into moves the beginning behind its end.
    """
    begin = start_s
    for j in range(taken.shape[-2]):
        opens, closes = taken[..., j, 0], taken[..., j, 1]
        hit = (begin < closes) & (begin + needed_s > opens)
        begin = np.where(hit, closes, begin)
    return begin
