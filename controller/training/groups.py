"""Training in a group, as the home DCC orders it: who leads, who takes part, how many rounds before an MPVU looks.

The job's object travels as always; a visit of it is then not one node's training but some rounds led at a compute
facility: federated averaging, gossip, split learning, central pooling. Gate, rollback, budget and deadline count such a
visit as they count any other. Members are places on offer (opaque handles that their own K-AS resolve); the facility
reaches them with objects announced as ``exchange``, for which ``target`` finds the way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controller.border.messages import AskFacilities, AskNextStop, Facility
from controller.engines.training import encoding, hpo
from controller.engines.training.tag import rounds_of
from controller.services import Services
from controller.training.jobs import Decision, Group
from controller.values.decisions import Mix, Option, Plan, Request, Step
from controller.values.errors import EngineError
from controller.values.handles import member_place

ACTIONS = {
    "federated": "federate", "secure": "federate", "central": "central", "split": "split", "gossip": "gossip",
    "own": "own",
}  # fmt: skip
MOST_MEMBERS = 24  # as many as fit one packet with the rest of the order


@dataclass(frozen=True)
class Led:
    """What was decided: where the object goes, and what it does there."""

    kas: int
    handle: str
    plan: Plan
    group: Group


async def decide(
    services: Services, request: Request, object_id: int, visit: int, options: Sequence[Option], ask: AskNextStop
) -> Led:
    """Choose leader, members and rounds of a job's next visit; ``EngineError`` when nobody can lead or take part.

    ``visit``: number of this group visit, 0 the first.
    """
    members = taking_part(request, options)
    if not members:
        raise EngineError(f"no data of {len(options)} places on offer may take part")
    chosen = await leader(services, members, ask.exclude)
    group = Group(
        action=ACTIONS[request.method],
        members=[member_place(object_id, o) for o in members],
        place=f"{chosen.kas}:{chosen.handle}",
        rounds=rounds_of(request.method, len(members)),
        secure=request.method == "secure",
    )
    return Led(chosen.kas, chosen.handle, _plan(request, visit, members, chosen, group.rounds), group)


def taking_part(request: Request, options: Sequence[Option]) -> list[Option]:
    """Return one place for each data set that is trusted enough, where the data need not move; in a stable order."""
    at_home = [o for o in options if not o.move_bytes and o.samples > 0 and o.mix and o.trust >= request.trust_floor]
    return sorted(at_home, key=lambda o: (o.kas, o.handle))[:MOST_MEMBERS]


async def leader(services: Services, members: Sequence[Option], exclude: Collection[str] = ()) -> Facility:
    """Return the ready compute facility with the fewest K-AS borders to all members; the lowest K-AS on a tie."""
    found = await services.facilities(lambda k: AskFacilities(kas=k, role="compute"))
    fit = [f for f in found if f.attributes.get("ready") and f.handle_key not in exclude]

    def borders(facility: Facility) -> int:
        paths = [services.domain.kas_path(facility.kas, o.kas) for o in members]
        return sum(len(path) if path else len(services.all_kas) for path in paths)

    if not fit:
        raise EngineError(f"no compute facility of {len(found)} is ready to lead a group")
    return min(fit, key=lambda f: (borders(f), f.kas, f.handle))


def _plan(request: Request, visit: int, members: Sequence[Option], leader: Facility, rounds: int) -> Plan:
    """Return the visit in the planner's words: one option that stands for all members' data."""
    samples = sum(o.samples for o in members)
    mix: Mix = {g: sum(o.mix.get(g, 0.0) * o.samples for o in members) / samples for g in request.groups}
    hyper = hpo.hyper(request, visit, max(o.samples for o in members))
    slowest = max(o.epoch_s + o.reach_s for o in members)
    together = Option(
        kas=leader.kas, handle=leader.handle, mix=mix, samples=samples, epoch_s=slowest, reach_s=0.0,
        quality=max(o.quality for o in members),
    )  # fmt: skip
    cost_s, cost_bytes = rounds * hyper.epochs * slowest, 2 * rounds * len(members) * request.model_bytes
    reason = f"K-AS {leader.kas}: {request.method} training of {len(members)} members, {rounds} round(s)"
    step = Step(
        option=together, hyper=hyper, expected={}, cost_s=cost_s, cost_bytes=cost_bytes, verify=True, reason=reason
    )
    return Plan(
        steps=[step], expected_broad=0.0, expected_expert=0.0, total_s=cost_s, total_bytes=cost_bytes, alternatives=[]
    )


def encoding_of(wanted: str, decision: Decision) -> str:
    """Return how models and updates of a decided training stop travel: the owner's word, or HPO's (``auto``)."""
    assert decision.step is not None
    return encoding.choose(wanted, decision.step, 2 * len(decision.group.members) if decision.group else 1)
