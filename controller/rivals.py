"""What other jobs take of the places on offer and of the links, for the next plan to go around.

Every K-AS says what it knows: which of its places objects are on their way to or worked on at, under the opaque name
that its options have, too, and how much of its borders others use. A home control centre adds what it has just decided
and nobody has announced yet; a visit known from both is one window twice, which is one window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from controller.domain import Domain
from controller.engines.bookings import bookings_of
from controller.engines.types import Booking, Load
from controller.jobs import Job
from controller.kit import Kit
from controller.protocol import Options
from controller.steering import Leg
from controller.tools.sensing import Sensing
from controller.topology.drrt import place_of
from packets.labels import object_label

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


def bookings_at(kit: Kit, kas: int, object_id: int) -> list[Booking]:
    """Return which places of a K-AS other objects take, from now until their visit should be over."""
    now_s = kit.clock()
    others = [a for a in kit.location.expected() if a.kas == kas and a.object_id != object_id and a.until_s > now_s]
    return [Booking(place=place_of(kit.salt, a.node), start_s=0.0, end_s=a.until_s - now_s) for a in others]


def share_left(
    kit: Kit, sensing: Sensing, legs: Mapping[tuple[int, int], Leg], kas: int, object_id: int
) -> dict[int, float]:
    """Return {neighbouring K-AS: share of the link's rate that other jobs leave}, where any have their way over it.

    Measured by the port counters, of which every job with rules there is taken to cause its fair part; so beside n
    others there is at least 1 / (n + 1) of a link.
    """
    found: dict[int, float] = {}
    jobs = {label for (label, at), leg in legs.items() if at == kas and leg.action in JOB_STOPS}
    for (name, port), border in kit.domain.borders.items():
        labels = _labels_at(kit, name, port) & jobs
        others = len(labels - {object_label(object_id)})
        if kit.domain.switches[name].kas != kas or not others:
            continue
        used = sensing.rate_mbps(name, port, kit.clock()) / border.rate_mbps
        left = max(1.0 - used * others / len(labels), 1 / (others + 1))
        if left < 1:
            found[border.neighbour_kas] = left
    return found


def _labels_at(kit: Kit, name: str, port: int) -> set[int]:
    """Return the objects that have rules over a port."""
    paths = kit.communication.paths.values()
    return {p.label for p in paths if (name, port) in ((p.entry.switch, p.entry.port), (p.exit.switch, p.exit.port))}


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
