"""Which way to train a job: the home DCC asks TAG when the job is submitted, with the links that this DCC knows.

An owner who asks for ``auto`` gets TAG's choice; one who names a method gets it and is told what TAG would choose.
Inside its own K-AS a DCC knows every link, of the others the K-AS level graph alone: their access links are taken to be
like its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from controller.domain import Domain
from controller.engines.training import hpo
from controller.engines.training.tag import Choice, Cut, Ways, choose
from controller.services import Services
from controller.training import groups
from controller.training.jobs import Job
from controller.values.decisions import Hyper, Option, Request
from controller.values.errors import EngineError
from packets.messages import Fixed

AUTO = "auto"
STOP_S = 0.25  # of a stop besides training and bytes: decision, flows, launch, the model read and written (assumed)
ANSWER_S = 0.05  # of a step of split learning besides its bytes: all members' messages through one facility (assumed)
FALLBACK_MBPS = 100.0


async def choose_method(services: Services, job: Job, options: Sequence[Option]) -> dict[str, Any]:
    """Ask TAG; an ``auto`` job gets its method. Returns what to tell: asked, chosen, method, reason, prospects."""
    asked, choice = job.spec.method, await _ask(services, job, groups.taking_part(job.request, options))
    chosen = "routed" if choice.method == "sequential" else choice.method
    if asked == AUTO:
        job.spec = msgspec.structs.replace(job.spec, method=chosen)
        job.request = msgspec.structs.replace(job.request, method=chosen)
    prospects = [p._asdict() for p in choice.prospects]
    return {
        "asked": asked, "chosen": chosen, "method": job.spec.method, "reason": choice.reason, "prospects": prospects
    }  # fmt: skip


async def _ask(services: Services, job: Job, members: Sequence[Option]) -> Choice:
    """Have TAG choose for these members; without two of them, or anybody to lead, it is a route."""
    if len(members) < 2:
        return choose(job.request, members)
    try:
        leader = (await groups.leader(services, members)).kas
    except EngineError as error:
        return Choice("sequential", f"sequential: {error}", [])
    ways = links(services.domain, leader, Counter(o.kas for o in members))
    local = local_of(job.request, members, job.spec.hyper)
    asked = job.request, list(members), ways, cut_of(job), local
    return await services.intelligence.engines.choose_method(*asked, chosen=job.spec.engines)  # type: ignore[no-any-return]


def cut_of(job: Job) -> Cut:
    """Return where the job's model would be cut, as its owner said."""
    spec = job.spec
    return Cut(
        allowed=spec.lower_bytes > 0, lower_bytes=spec.lower_bytes, activation_bytes=spec.activation_bytes
    )  # fmt: skip


def local_of(request: Request, members: Sequence[Option], fixed: Fixed) -> Hyper:
    """Return epochs and batches of a round of ``members`` (one or more): HPO's, but for what the owner has fixed."""
    usual = hpo.hyper(request, 0, round(sum(o.samples for o in members) / len(members)))
    return msgspec.structs.replace(
        usual, epochs=fixed.epochs or usual.epochs, batch_size=fixed.batch_size or usual.batch_size
    )


def links(domain: Domain, leader: int, members: Mapping[int, int]) -> Ways:
    """Return the ways between ``members`` (how many in each K-AS) and a facility of K-AS ``leader``.

    A round's transfers pass together as fast as the busiest link lets them: in a star the facility's own access link or
    the WAN link that most members lie behind, in pairs the WAN link that most pairs need (each to a random other).
    """
    count, access = sum(members.values()), access_mbps(domain)
    pairs = {(a, b): n * m / max(1, count - 1) for a, n in members.items() for b, m in members.items() if a != b}
    star = _loads(domain, {(leader, k): float(n) for k, n in members.items()})
    mesh = _loads(domain, pairs)
    rates = {(min(k.a_kas, k.b_kas), max(k.a_kas, k.b_kas)): k.rate_mbps for k in domain.live_kas_links()}
    return Ways(
        rate_mbps=min([access, *(rates[link] for link in {*star, *mesh})]),
        round_trip_s=_round_trip_s(domain, leader, members),
        star_mbps=count / max([count / access, *(load / rates[link] for link, load in star.items())]),
        mesh_mbps=count / max([1 / access, *(load / rates[link] for link, load in mesh.items())]),
        gated=True,
        stop_s=STOP_S,
        answer_s=ANSWER_S,
    )


def access_mbps(domain: Domain) -> float:
    """Return the rate of the slowest access link that this DCC knows."""
    names = {h.name for h in domain.plan.hosts}
    return min((k.rate_mbps for k in domain.plan.links if k.a in names), default=FALLBACK_MBPS)


def _loads(domain: Domain, transfers: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Return how many of the transfers between K-AS pass each WAN link, by (lower, higher) K-AS."""
    found: dict[tuple[int, int], float] = {}
    for (start, end), number in transfers.items():
        for a, b in pairwise(domain.kas_path(start, end)):
            link = min(a, b), max(a, b)
            found[link] = found.get(link, 0.0) + number
    return found


def _round_trip_s(domain: Domain, leader: int, members: Mapping[int, int]) -> float:
    """Return the mean round trip between the facility and the members."""
    delay_ms = {frozenset((k.a_kas, k.b_kas)): k.delay_ms for k in domain.live_kas_links()}
    ways = {k: sum(delay_ms[frozenset(p)] for p in pairwise(domain.kas_path(leader, k))) for k in members}
    return 2e-3 * sum(ways[k] * n for k, n in members.items()) / max(1, sum(members.values()))
