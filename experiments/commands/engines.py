"""``--engine``, ``daitn engines`` and the try-out of ``daitn check``: own engines and metrics, before they matter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.markup import escape

from controller.errors import PluginError
from controller.plugins.contracts import CONTRACTS, read_answer
from controller.plugins.loading import check_name, installed
from controller.plugins.outside import LIMIT_S, EngineFailed, Outside
from controller.values.errors import EngineError
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, engine_setup, with_engines
from hosts.terminal.own_metrics import OwnMetrics
from topologies.own.files import absolute

RECORDED = Path(__file__).parent / "engine_requests.json"
HALF_BUSY = {
    "name": "mdfp1",
    "kas": 1,
    "compute_samples_per_s": 9000.0,
    "memory_mib": 500.0,
    "queue": 1,
    "load": 0.5,
    "reachable": True,
    "models": [],
    "latency_ms": 4.0,
}  # what an MDFP reports of itself


def parse(words: Sequence[str]) -> dict[str, str]:
    """Return {engine: source} of ``mtrce=mine.py:plan`` words; ``ExperimentError`` for what is none."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not equals or not source:
            raise ExperimentError(f"--engine {word}: give ENGINE=SOURCE, for example mtrce=mine.py:plan")
        try:
            check_name(name)
        except PluginError as error:
            raise ExperimentError(f"--engine {word}: {error}") from None
        if name in found:
            raise ExperimentError(f"--engine {word}: {name} was given already, as {found[name]}")
        found[name] = source
    return found


def with_words(scenario: Scenario, words: Sequence[str]) -> Scenario:
    """Return a scenario with the engines of ``--engine``, their files found from here."""
    return with_engines(scenario, parse(words), scenario.name, Path.cwd()) if words else scenario


def here(words: Sequence[str]) -> dict[str, str]:
    """Return {engine: source} of ``--engine`` words as a job names them, files found from here."""
    return {name: absolute(source, Path.cwd()) for name, source in parse(words).items()}


def check_engines(scenario: Scenario) -> None:
    """Start every engine of one's own once; ``ExperimentError`` says which cannot be, before anything is built."""
    for name, source in engine_setup(scenario).own:
        asyncio.run(_starts(name, source))


async def _starts(name: str, source: str) -> None:
    engine = Outside(name, source)
    try:
        await engine.start()
    except EngineFailed as error:
        raise ExperimentError(str(error)) from None
    finally:
        await engine.end()


def say_engines(console: Console) -> None:
    """List every engine: what it decides, what it is given and answers, where the default is."""
    for contract in CONTRACTS.values():
        console.print(
            f"[bold]{contract.name:<6}[/] {contract.paper}: {contract.asked}", highlight=False, soft_wrap=True
        )
        console.print(f"       {escape(contract.signature)}", highlight=False, soft_wrap=True)
        console.print(f"       [dim]default: {contract.source}[/]", highlight=False, soft_wrap=True)
    for name, where in installed().items():
        console.print(f"installed: {name} ({where})", highlight=False)
    console.print(
        "your own: daitn run --engine mtrce=mine.py:plan (or module:function, or an entry point of daitn.engines); "
        "types: controller/values; a template: examples/mtrce_nearest.py",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


class Trial(NamedTuple):
    """What an engine made of the recorded requests. ``fault``: of the first that failed ('': none did)."""

    asked: int
    slowest_s: float
    fault: str


def try_engines(scenario: Scenario, console: Console) -> None:
    """Ask every engine of one's own what was asked in a real run; ``ExperimentError`` for one that is not fit."""
    for name, source in engine_setup(scenario).own:
        trial = asyncio.run(_try(name, source))
        if trial.fault:
            raise ExperimentError(f"engine {name}={source}: {trial.fault}")
        console.print(
            f"[green]✓[/] engine {name}={escape(source)}: {trial.asked} recorded requests answered, twice alike, "
            f"{trial.slowest_s * 1e3:.0f} ms at most (limit {LIMIT_S:g} s)", highlight=False, soft_wrap=True,
        )  # fmt: skip


def try_metrics(scenario: Scenario, console: Console) -> None:
    """Ask every metric of one's own once; ``ExperimentError`` for one that gives no figure."""
    faults = list[str]()
    metrics = OwnMetrics(scenario.cats, faults.append)
    metrics.about = HALF_BUSY
    try:
        if scenario.cats:
            metrics.round()
    finally:
        metrics.end()
    if faults:
        raise ExperimentError(faults[0].removesuffix("; it is left out"))
    for name, value in metrics.values.items():
        console.print(f"[green]✓[/] metric {name}: {value:g} at an MDFP that is half busy", highlight=False)


async def _try(name: str, source: str) -> Trial:
    engine, slowest_s = Outside(name, source), 0.0
    asked = recorded()[name]
    try:
        await engine.start()
        for arguments in asked:
            start = time.monotonic()
            first = await _answer(engine, name, arguments)
            slowest_s = max(slowest_s, time.monotonic() - start)
            if await _answer(engine, name, arguments) != first:
                return Trial(len(asked), slowest_s, "the same request twice, two answers: seed what is random")
    except (EngineFailed, ValueError) as error:
        return Trial(len(asked), slowest_s, str(error))
    finally:
        await engine.end()
    return Trial(len(asked), slowest_s, "")


async def _answer(engine: Outside, name: str, arguments: Any) -> Any:
    try:
        return read_answer(CONTRACTS[name], arguments, await engine.ask(arguments))
    except EngineError as error:
        return f"none: {error}"


@cache
def recorded() -> dict[str, list[Any]]:
    """Return what each engine was asked in a run of the healthcare scenario (seed 1): {engine: [arguments]}."""
    raw = msgspec.json.decode(RECORDED.read_bytes())
    return {n: [msgspec.convert(a, c.arguments, strict=False) for a in raw[n]] for n, c in CONTRACTS.items()}
