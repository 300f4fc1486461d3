"""What other jobs take of the places on offer and of the links, for the next plan to go around.

Every K-AS says what it knows: which of its places objects are on their way to or worked on at, under the opaque name
that its options have, too, and how much of its borders others use. A home control centre adds what it has just decided
and nobody has announced yet; a visit known from both is one window twice, which is one window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from controller.access.gathering import Gathering
from controller.access.places import Places
from controller.border.messages import AskOptions, Book, Options
from controller.domain import Domain
from controller.engines.routing.bookings import bookings_of
from controller.errors import SteeringError
from controller.services import Services
from controller.steering.launch import Leg
from controller.tools.links import SensingLink
from controller.topology.drrt import place_of
from controller.training.jobs import Job
from controller.values.decisions import Booking, Load
from packets.labels import object_label

STALE_S = 3.0  # what a cut rests on and is older is pulled first
LAPSE_S = 5.0  # a stop that was decided is announced in milliseconds, or never
TOLERANCE_S = 0.25
JOB_STOPS = ("train", "verify", "confirm", "home")


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


@dataclass(frozen=True)
class Kept:
    """A place kept for an object from when its stop was decided until its arrival is announced, or nobody came."""

    kas: int
    node: str
    visit: int
    until_s: float
    lapses_s: float


class Rivals:
    """What a K-AS knows of the jobs that meet in it. ``legs``: the objects that are steered here, by (label, K-AS)."""

    def __init__(
        self,
        services: Services,
        places: Places,
        gathering: Gathering,
        sensing: SensingLink,
        legs: Mapping[tuple[int, int], Leg],
    ) -> None:
        self.services, self.places, self.gathering, self.sensing, self.legs = services, places, gathering, sensing, legs
        self._kept: dict[int, Kept] = {}

    async def offer(self, ask: AskOptions) -> Options:
        """Say what a K-AS offers a job now, and what others take of it; what that rests on is pulled when too old."""
        await self.gathering.freshen(*self.places.wants(ask.kas), STALE_S)
        return Options(
            options=await self.places.options(ask.object_id, ask.request, ask.kas),
            bookings=self.bookings(ask.kas, ask.object_id),
            share_left=self.share_left(ask.kas, ask.object_id),
        )

    async def book(self, ask: Book) -> None:
        """Keep a place for an object; ``SteeringError`` when others take it for longer than the home reckoned with."""
        now_s, taken = self.services.clock(), self._taken(ask.kas, ask.object_id)
        await self.places.settle(ask.object_id, ask.handle, taken)
        node = self.places.resolve(ask.object_id, ask.kas, ask.handle).host.name
        taken_s = taken.get(node, 0.0)
        if taken_s > ask.wait_s + TOLERANCE_S:
            raise SteeringError(f"the place is taken for {taken_s:.1f} s now")
        self._kept = {i: k for i, k in self._kept.items() if k.lapses_s > now_s}
        self._kept[ask.object_id] = Kept(ask.kas, node, ask.visit, now_s + ask.expected_s, now_s + LAPSE_S)

    def bookings(self, kas: int, object_id: int) -> list[Booking]:
        """Return which places of a K-AS other objects take, from now until their visit should be over."""
        taken = self.services.intelligence.taken(self._taken(kas, object_id))
        return [
            Booking(place=place_of(self.services.salt, name), start_s=0.0, end_s=for_s) for name, for_s in taken.items()
        ]

    def _taken(self, kas: int, object_id: int) -> dict[str, float]:
        """Return the terminals of a K-AS that other objects take, and for how many seconds."""
        now_s, seen = self.services.clock(), {a.object_id: a.visit for a in self.services.location.expected()}
        arrivals = [(a.node, a.until_s, a.object_id) for a in self.services.location.expected() if a.kas == kas]
        kept = [
            (k.node, k.until_s, i)
            for i, k in self._kept.items()
            if k.kas == kas and k.lapses_s > now_s and seen.get(i, -1) < k.visit
        ]
        found = dict[str, float]()
        for node, until_s, i in [*arrivals, *kept]:
            if i != object_id and until_s > now_s:
                found[node] = max(until_s - now_s, found.get(node, 0.0))
        return found

    def share_left(self, kas: int, object_id: int) -> dict[int, float]:
        """Return {neighbouring K-AS: share of the link's rate that other jobs leave}, where any have their way over it.

        Measured by the port counters, of which every job with rules there is taken to cause its fair part; so beside n
        others there is at least 1 / (n + 1) of a link.
        """
        services, found = self.services, dict[int, float]()
        jobs = {label for (label, at), leg in self.legs.items() if at == kas and leg.action in JOB_STOPS}
        for (name, port), border in services.domain.borders.items():
            labels = self._labels_at(name, port) & jobs
            others = len(labels - {object_label(object_id)})
            if services.domain.switches[name].kas != kas or not others:
                continue
            used = self.sensing.rate_mbps(name, port, services.clock()) / border.rate_mbps
            left = max(1.0 - used * others / len(labels), 1 / (others + 1))
            if left < 1:
                found[border.neighbour_kas] = left
        return found

    def _labels_at(self, name: str, port: int) -> set[int]:
        """Return the objects that have rules over a port."""
        paths = self.services.communication.paths.values()
        return {p.label for p in paths if any((end.switch, end.port) == (name, port) for end in (p.entry, p.exit))}


def load_told(domain: Domain, offers: Mapping[int, Options], holder_kas: int) -> Load:
    """Return the load as all K-AS tell of it: every booking, and what the narrowest link of the way from the holder to
    each K-AS has left.
    """
    left: dict[tuple[int, int], float] = {}
    for kas, said in offers.items():
        for other, share in said.share_left.items():
            for link in ((kas, other), (other, kas)):
                left[link] = min(share, left.get(link, 1.0))
    ways = {kas: list(pairwise(domain.kas_path(holder_kas, kas))) for kas in offers}
    shares = {kas: min((left.get(link, 1.0) for link in way), default=1.0) for kas, way in ways.items()}
    bookings = [b for said in offers.values() for b in said.bookings]
    return Load(bookings=bookings, way_share={kas: share for kas, share in shares.items() if share < 1})
