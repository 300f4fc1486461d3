"""``daitn compare``: resolve what is to be compared, run it, show the table, write ``compare.json`` and the page."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from experiments.commands.engines import check_engines, here, parse, with_words
from experiments.commands.resolving import Said, check_own_method, found_from_here, resolve, rooted
from experiments.commands.session import RUNS, need_root
from experiments.comparing.page import table, write_page
from experiments.comparing.runs import DEFAULT_METHODS, TOGETHER, Comparison, Plan
from experiments.errors import ExperimentError
from experiments.run import check_method
from experiments.scenarios.scenario import dump, load
from experiments.sweeping.watching import Watching, at_once
from topologies.own.files import absolute


class Budget(NamedTuple):
    """What the methods may use: visits of one model, rounds of a group, passes over pooled data (0: as the scenario has
    it); whether one model trains on when its targets are met; whether MPVUs may keep part of a visit.
    """

    visits: int = 0
    rounds: int = 0
    passes: int = 0
    train_on: bool = False
    merge: bool = True


def compare_methods(
    scenario: str,
    methods: str,
    seeds: Sequence[int],
    *,
    engine: str | None = None,
    said: Said,
    out: Path | None,
    resume: bool,
    console: Console,
    budget: Budget | None = None,
    jobs: int = 1,
) -> bool:
    """Compare; True when every run measured something. ``ExperimentError`` before the first run where one cannot be."""
    plan = make_plan(scenario, methods, seeds, engine=engine, said=said, out=out, resume=resume, budget=budget)
    plan = plan._replace(jobs=jobs)
    need_root()
    sides = "engines" if engine else "methods"
    console.print(
        f"{len(plan.methods)} {sides}, {len(plan.seeds)} seed(s){at_once(jobs)}; runs in {plan.out}",
        highlight=False,
    )
    comparison = Comparison(plan, lambda line: console.print(line, highlight=False, soft_wrap=True))
    try:
        with Watching(console) as watching:
            comparison.run(watching)
    finally:
        if comparison.results:
            _show(comparison, console)
    return not comparison.errors


def make_plan(
    scenario: str,
    methods: str,
    seeds: Sequence[int],
    *,
    engine: str | None = None,
    said: Said | None = None,
    out: Path | None = None,
    resume: bool = False,
    budget: Budget | None = None,
) -> Plan:
    """Check scenario, methods, data, network and task; return the plan. A ``budget`` makes scenarios of its own in the
    folder. ``said``: as of ``daitn run``, without seeds and engines.
    """
    said = rooted(said or {})
    engines = engines_side_by_side(engine) if engine else {}
    if engines and methods not in ("", "routed"):
        raise ExperimentError("--engine compares engines, --methods compares methods: give one of them")
    named = DEFAULT_METHODS if methods in ("", "all") else tuple(m.strip() for m in methods.split(","))
    own = {_short(name): absolute(name, Path.cwd()) for name in named if ":" in name}
    names = tuple(engines) or tuple(_short(name) for name in named)
    if resume and out is None:
        raise ExperimentError("--resume needs --out DIR: which results are to be kept?")
    resolved = resolve(scenario, **said)
    for name in names:
        if name not in engines and name not in own:
            check_method(name, resolved.data.method)
    for method in own.values():
        check_own_method(method)
    for words in engines.values():
        check_engines(with_words(resolved, [words]))
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (out or RUNS / f"compare-{stamp}-{resolved.name}").resolve()
    plan = Plan(
        found_from_here(scenario),
        names,
        tuple(seeds),
        folder,
        said,
        resume=resume,
        name=resolved.name,
        engines=engines,
        own=own,
    )
    return plan if budget is None else _with_budget(plan, budget)


def engines_side_by_side(word: str) -> dict[str, str]:
    """Return {label: ``--engine`` word} of ``mtrce=default,mine.py:plan``; ``ExperimentError`` for what is none."""
    name, _, sources = word.partition("=")
    listed = [s.strip() for s in sources.split(",") if s.strip()]
    found = {f"{name}={_short(s)}": f"{name}={parse([f'{name}={s}'])[name]}" for s in listed}
    if len(found) < 2 or len(found) != len(listed):
        raise ExperimentError(f"--engine {word}: name two different sources or more, as in mtrce=default,mine.py:plan")
    absolute_words = {label: here([w]) for label, w in found.items()}
    return {label: f"{name}={source[name]}" for label, source in absolute_words.items()}


def _short(source: str) -> str:
    """Return a source's name for a table: a file's without its folder."""
    where, colon, function = source.rpartition(":")
    return f"{Path(where).name}:{function}" if colon else source


def _with_budget(plan: Plan, budget: Budget) -> Plan:
    """Write the scenarios that a comparison with a budget of its own runs; return the plan with them."""
    scenario = load(plan.scenario)
    plan.out.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    ways = (
        ("one", budget.visits, budget.train_on),
        ("together", budget.rounds, False),
        ("central", budget.passes, budget.train_on),
    )
    for name, visits, train_on in ways:
        jobs = [
            msgspec.structs.replace(
                j, max_visits=visits or j.max_visits, train_on=train_on or j.train_on, merge=j.merge and budget.merge
            )
            for j in scenario.jobs
        ]
        file = plan.out / f"{scenario.name}-{name}.yaml"
        file.write_bytes(dump(msgspec.structs.replace(scenario, jobs=jobs)))
        files[name] = str(file)
    told = tuple(f"{key} {value}" for key, value in budget._asdict().items())
    others = {method: files["together"] for method in (*TOGETHER, *plan.own)} | {"central": files["central"]}
    return plan._replace(scenario=files["one"], scenarios=others, settings=told)


def _show(comparison: Comparison, console: Console) -> None:
    plan, summary = comparison.plan, comparison.summary()
    job = resolve(plan.scenario, **plan.said).jobs[-1]
    targets = {"broad": job.broad_accuracy} | ({"expert": job.expert_accuracy} if job.expert_group else {})
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / "compare.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_page(summary, plan.out / "compare.html", targets=targets, expert_group=job.expert_group)
    console.print(table(summary, job.expert_group))
    console.print(f"page       {plan.out / 'compare.html'}", highlight=False, soft_wrap=True)
