"""The policies by which an autonomous object chooses whose data to meet next: by name, all alike in use.

A policy is a function ``(request, view, options, rng, *, parameters...) -> handles``: of what terminals said when they
were asked (``Option.handle`` is an address), it names where to go, best first. Its keyword arguments are the parameters
that a job may set, all numbers; ``Annotated[float, msgspec.Meta(ge=..., le=...)]`` gives one bounds. It is code of the
terminals: a packet brings its name and parameters, never code.
"""

from __future__ import annotations

import difflib
import inspect
import random
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Annotated, Any

import msgspec
import numpy as np

from controller.engines.routing import mtrce
from controller.engines.routing.canvas import after, data_key, draw, ends, room, shortfall, where
from controller.engines.routing.forgetting import State
from controller.values.decisions import JobView, Option, Request
from controller.values.errors import EngineError
from hosts.errors import HostError
from packets.aats.journey import MAX_ROUTE
from topologies.own.files import own_function

Choose = Callable[..., Sequence[str]]
LATELY = 6  # visits
SPARE = 0.1  # what accuracy beyond a target counts, beside what is missing to one


def greedy(request: Request, view: JobView, options: Sequence[Option], rng: random.Random) -> list[str]:
    """Return the addresses by what a visit helps the unmet targets per second that it is expected to take.

    What it helps is MTRCE's prediction of one visit (``engines.routing.forgetting``): what it teaches, less what it
    wipes out. Data that was met last, or rejected lately, is left out where there is other.
    """
    fresh = fresh_of(view, options)
    offers, everything = [[o] for o in fresh], [[o] for o in options]
    canvas = draw(request, _visited(view, options), offers, everything, request.deadline_s - view.elapsed_s)
    start = where(request, view, canvas.ceiling)
    then = after(canvas, State(*(part[None, :] for part in start)), np.zeros((1, len(offers))), 0).at(0)
    helps = shortfall(canvas, start.skill) - shortfall(canvas, then.skill)
    helps = helps + SPARE * (room(canvas, then.skill) - room(canvas, start.skill))
    ends_s = ends(canvas, np.zeros(1))[0][0]
    rates = np.where(helps > 0, helps / ends_s, helps)
    in_time = [i for i in range(len(fresh)) if np.isfinite(ends_s[i])]
    return [fresh[i].handle for i in sorted(in_time, key=lambda i: (-rates[i], fresh[i].handle))]


def planned(request: Request, view: JobView, options: Sequence[Option], rng: random.Random) -> list[str]:
    """Return the route that MTRCE plans from here on: as a control centre that knew what the object knows would."""
    try:
        steps = mtrce.plan(msgspec.structs.replace(request, method="routed"), view, options).steps
    except EngineError:
        return []
    return [step.option.handle for step in steps]


def random_walk(
    request: Request, view: JobView, options: Sequence[Option], rng: random.Random, *,
    jump: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2, near: Annotated[float, msgspec.Meta(ge=1)] = 3,
) -> list[str]:  # fmt: skip
    """Return all addresses by chance, one of the ``near`` quickest to reach first, or with probability ``jump`` any."""
    quickest = sorted(options, key=lambda o: (o.reach_s, o.handle))
    first = rng.choice(quickest if rng.random() < jump else quickest[: max(1, int(near))])
    others = [o.handle for o in options if o is not first]
    rng.shuffle(others)
    return [first.handle, *others]


def end_to_end(request: Request, view: JobView, options: Sequence[Option], rng: random.Random) -> list[str]:
    """Return the whole route at once: the one that MTRCE plans, and the same again, as far as the budget goes."""
    steps = planned(request, view, options, rng)
    return list(islice(cycle(steps), min(request.max_visits, MAX_ROUTE))) if steps else []


def fresh_of(view: JobView, options: Sequence[Option]) -> list[Option]:
    """Return the options without the data that was met last or rejected lately; all, where nothing else is left."""
    stale = {view.visits[-1].handle} if view.visits else set()
    stale |= {v.handle for v in view.visits[-LATELY:] if v.accepted is False}
    return [o for o in options if o.handle not in stale] or list(options)


def _visited(view: JobView, options: Sequence[Option]) -> list[object]:
    """Return the data of each visit made, as the canvas tells data apart."""
    keys = {o.handle: data_key(o) for o in options}
    return [keys.get(v.handle, v.handle) for v in view.visits]


@dataclass(frozen=True)
class Policy:
    """A policy by its name. ``whole``: it is asked once, by the owner, and its whole route is kept to."""

    name: str
    choose: Choose
    whole: bool = False

    @property
    def parameters(self) -> dict[str, float]:
        """What a job may set, with the values otherwise."""
        told = inspect.signature(self.choose).parameters.values()
        return {p.name: p.default for p in told if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def check(self, parameter: str, value: float) -> None:
        """Check a value against the bounds that its parameter is annotated with; ``HostError`` names them."""
        try:
            told = typing.get_type_hints(self.choose, include_extras=True).get(parameter)
        except Exception:  # one's own may annotate with what only type checkers know: then it says no bounds
            return
        for meta in getattr(told, "__metadata__", ()):
            least, most = getattr(meta, "ge", None), getattr(meta, "le", None)
            if (least is not None and not value >= least) or (most is not None and not value <= most):
                bounds = f"{least:g} or more" if most is None else f"{most:g} or less"
                bounds = bounds if least is None or most is None else f"{least:g} to {most:g}"
                raise HostError(
                    f"policy {self.name}: parameter {parameter} = {value:g} is out of bounds; give {bounds}"
                )


POLICIES = {
    p.name: p
    for p in (
        Policy("greedy", greedy),
        Policy("planned", planned),
        Policy("random-walk", random_walk),
        Policy("end-to-end", end_to_end, whole=True),
    )
}


def load_policies(sources: Sequence[str]) -> dict[str, Policy]:
    """Return ours and, under its source, each of one's own, ``file.py:function``; ``HostError`` in one line.

    One's own is asked once, by the owner, where the function has an attribute ``whole`` that is true.
    """
    own: dict[str, Any] = {source: own_function("policy", source, HostError) for source in sources}
    return POLICIES | {name: Policy(name, own[name], bool(getattr(own[name], "whole", False))) for name in own}


def find_policy(name: str, parameters: Mapping[str, float], known: Mapping[str, Policy] = POLICIES) -> Policy:
    """Return a policy by its name; ``HostError`` names the nearest, or what is wrong with a parameter."""
    if name not in known and ":" in name:
        raise HostError(
            f"policy {name} is not known here; name one of your own in a job of the scenario (`steering: aats`, "
            f"`policy: {name}`) that `daitn up` brings up; there are: {', '.join(known)}"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise HostError(f"no policy is called {name!r}; {hint}there are: {', '.join(known)}")
    has = known[name].parameters
    for one, value in parameters.items():
        if one not in has:
            there = f"it has: {', '.join(has)}" if has else "it has none"
            raise HostError(f"policy {name} has no parameter {one!r}; {there}")
        known[name].check(one, value)
    return known[name]
