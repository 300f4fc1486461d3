"""TAG, the training algorithm generator: which way of training suits these data, this model and these links.

Objective: the highest accuracy expected when the time is up (the request's deadline); of methods that come within
``TIE`` of it, the one with the fewest bytes. Four methods, as the testbed carries them out:

- ``sequential``: one model visits node after node (MTRCE's route), an MPVU after each; little traffic, no parallelism.
- ``federated``: all nodes train at once, a facility averages; 2n models a round pass the facility's link.
- ``gossip``: all train at once, each sends its model to one other; n models a round, over links of their own.
- ``split``: nodes hold the lower layers; activations, labels and gradients travel with every step, lower layers are
  averaged after each pass. Needs a model that can be cut and owners of data who let labels go.

Time of a round: local training (of the slowest where all train at once), round trips, bytes over the rate at which
all transfers of the round pass together (``Ways``). Accuracy after R rounds (visits, passes):

    top * (1 - DROP * skew**4) * (1 - exp(-(R / scale)**shape)) * (1 - late / (1 + R))
    scale = exp(a + b * skew + c * skew**4 - d * log(local steps / 8))

``skew``: mean total variation distance of nodes' mixes from the pooled mix. One row of ``CURVES`` for each method,
fitted to real training of a 250 k transformer (vignettes) and a small layered model (digits) on 8 and 10 nodes, from
IID to one class a node, seeds 0, 1 and 3 (rmse 0.02-0.07); ``benchmarks/tag.py`` measures on another seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from controller.engines.training import hpo
from controller.values.decisions import Hyper, Mix, Option, Request

METHODS = ("sequential", "federated", "gossip", "split")
TIE = 0.003
VERIFY_TRIPS = 2  # of a sequential visit: to the node and to the MPVU
MOST_ROUNDS = 10_000
ACTIVATION_BYTES = 384


class Curve(NamedTuple):
    """The constants of one method's learning curve, see above."""

    a: float
    b: float
    c: float
    d: float
    drop: float
    top: float
    shape: float
    late: float


CURVES = {
    "sequential": Curve(0.033, 2.504, 2.556, 0.079, -0.389, 0.947, 0.857, 0.036),
    "federated": Curve(-0.379, 0.584, 0.942, 0.694, 0.306, 1.006, 1.730, 0.512),
    "gossip": Curve(-0.456, 0.647, 1.042, 0.829, 0.486, 1.006, 1.606, 0.521),
    "split": Curve(-0.587, 0.496, 0.642, 1.041, 0.054, 1.000, 1.473, 0.394),
}


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The links between the nodes. ``rate_mbps``: of one transfer alone.

    ``star_mbps``, ``mesh_mbps``: of all transfers together between a facility and the nodes, and between the nodes in
    pairs (0: ``rate_mbps``, but pairs have links of their own unless ``shared``). ``gated``: rounds come in visits of a
    job, ``Request.max_visits`` at most, and an MPVU sees each. ``stop_s``: a stop, besides training and bytes;
    ``answer_s``: a step of split learning besides its bytes.
    """

    rate_mbps: float = 50.0
    round_trip_s: float = 0.04
    shared: bool = True
    star_mbps: float = 0.0
    mesh_mbps: float = 0.0
    gated: bool = False
    stop_s: float = 0.0
    answer_s: float = 0.0


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Where split learning would cut: bytes of the lower layers (0: all of the model) and of one sample's activations.

    ``allowed`` False: the model has no place to cut, or labels must not leave the nodes.
    """

    allowed: bool = True
    lower_bytes: int = 0
    activation_bytes: int = ACTIVATION_BYTES


class Prospect(NamedTuple):
    """What one method is expected to come to when the time is up."""

    method: str
    accuracy: float
    rounds: int
    round_s: float
    bytes: float


class Choice(NamedTuple):
    """TAG's word: the method, why (one line for a person), and all prospects, best first."""

    method: str
    reason: str
    prospects: list[Prospect]


def choose(
    request: Request, options: Sequence[Option], ways: Ways | None = None, cut: Cut | None = None,
    local: Hyper | None = None,
) -> Choice:  # fmt: skip
    """Choose a method for distinct data ``options``. ``local``: epochs and batches of a round (default: HPO's word)."""
    if len(options) < 2:
        told = f"sequential: {len(options)} rendezvous on offer, nothing to train in parallel"
        return Choice("sequential", told, [])
    found = [_prospect(m, request, options, ways or Ways(), cut or Cut(), local) for m in METHODS]
    if cut and not cut.allowed:
        found = [p for p in found if p.method != "split"]
    found.sort(key=lambda p: (-p.accuracy, p.bytes))
    near = [p for p in found if p.accuracy >= found[0].accuracy - TIE]
    best = min(near, key=lambda p: p.bytes)
    return Choice(best.method, _reason(best, found, mix_skew(options)), found)


def choose_method(request: Request, options: Sequence[Option]) -> tuple[str, str]:
    """Return (method, reason) over wide-area links; see ``choose``."""
    choice = choose(request, options)
    return choice.method, choice.reason


def _prospect(
    method: str, request: Request, options: Sequence[Option], ways: Ways, cut: Cut, local: Hyper | None
) -> Prospect:
    count = len(options)
    samples = sum(o.samples for o in options) / count
    local = local or hpo.hyper(request, 0, round(samples))
    steps = max(1.0, local.epochs * samples / local.batch_size)
    sent = _bytes(method, request, count, local.epochs * samples, cut)
    round_s = (
        _train_s(method, options, local) + _trips_s(method, steps, ways) + 8e-6 * sent / _rate(method, count, ways)
    )
    most = request.max_visits if method == "sequential" else MOST_ROUNDS
    if ways.gated:
        each = rounds_of(method, count)
        seen, seen_s = _visit(method, request, count, ways)
        sent, round_s, most = sent + seen / each, round_s + seen_s / each, request.max_visits * each
    rounds = int(min(most, request.deadline_s / max(round_s, 1e-9)))
    accuracy = curve(method, rounds, mix_skew(options), steps)
    return Prospect(method, round(accuracy, 4), rounds, round_s, sent * rounds)


def _train_s(method: str, options: Sequence[Option], local: Hyper) -> float:
    """Return the seconds of a round's training: of the slowest where all train at once."""
    usual = sum(o.epoch_s for o in options) / len(options)
    return local.epochs * (usual if method == "sequential" else max(o.epoch_s for o in options))


def _trips_s(method: str, steps: float, ways: Ways) -> float:
    trips = {"sequential": VERIFY_TRIPS, "federated": 2, "gossip": 1, "split": 2 + steps}[method]
    return trips * ways.round_trip_s + (steps * ways.answer_s if method == "split" else 0.0)


def _bytes(method: str, request: Request, count: int, samples: float, cut: Cut) -> float:
    """Return the bytes of a round."""
    model = float(request.model_bytes)
    if method == "split":
        return count * (2.0 * (cut.lower_bytes or model) + 2.0 * samples * (cut.activation_bytes + 1))
    return {"sequential": 2.0, "federated": 2.0 * count, "gossip": float(count)}[method] * model


def _rate(method: str, count: int, ways: Ways) -> float:
    """Return the Mbit/s at which a round's bytes pass, all transfers together."""
    if method == "gossip":
        return ways.mesh_mbps or (ways.rate_mbps if ways.shared else ways.rate_mbps * count)
    return ways.rate_mbps if method == "sequential" else ways.star_mbps or ways.rate_mbps


def rounds_of(method: str, members: int) -> int:
    """Return the rounds of one visit of a job: one, but for gossip as many as it takes to reach everybody."""
    return max(1, math.ceil(math.log2(max(2, members)))) if method == "gossip" else 1


def _visit(method: str, request: Request, count: int, ways: Ways) -> tuple[float, float]:
    """Return bytes and seconds of a visit besides its rounds: to the leader and the MPVU, gossip's hand-out and end."""
    if method == "sequential":
        return 0.0, 2 * ways.stop_s
    carried, handed = 2.0 * request.model_bytes, 2.0 * count * request.model_bytes * (method == "gossip")
    wire_s = 8e-6 * (carried / ways.rate_mbps + handed / _rate("federated", count, ways))
    return carried + handed, wire_s + 2 * (ways.stop_s + ways.round_trip_s)


def curve(method: str, rounds: int, skew: float, steps: float) -> float:
    """Return the accuracy expected after so many rounds of so many local steps; 0 without any."""
    if rounds < 1:
        return 0.0
    k = CURVES[method]
    scale = math.exp(k.a + k.b * skew + k.c * skew**4 - k.d * math.log(steps / 8))
    learned = 1.0 - math.exp(-min(700.0, (rounds / scale) ** k.shape))
    return max(0.0, min(1.0, k.top * (1.0 - k.drop * skew**4) * learned * (1.0 - k.late / (1 + rounds))))


def _reason(best: Prospect, found: Sequence[Prospect], skew: float) -> str:
    """Say in one line what the choice rests on."""
    others = [p for p in found if p.method != best.method]
    told = ", ".join(f"{p.method} {p.accuracy:.2f} ({p.rounds} rounds, {p.bytes / 1e6:.1f} MB)" for p in others)
    return (
        f"{best.method}: {best.accuracy:.2f} expected after {best.rounds} rounds of {best.round_s:.2f} s "
        f"({best.bytes / 1e6:.1f} MB); mixes differ by {skew:.2f}; {told}"
    )


def mix_skew(options: Sequence[Option]) -> float:
    """Return the sample-weighted mean total variation distance of the options' mixes from their pooled mix, 0..1."""
    total = sum(o.samples for o in options)
    if total <= 0:
        return 0.0
    groups = sorted({g for o in options for g in o.mix})
    pooled: Mix = {g: sum(o.samples * o.mix.get(g, 0.0) for o in options) / total for g in groups}
    distance = (o.samples * sum(abs(o.mix.get(g, 0.0) - pooled[g]) for g in groups) / 2 for o in options)
    return sum(distance) / total
