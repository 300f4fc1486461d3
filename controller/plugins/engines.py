"""The engines as a control centre asks them: the defaults, or a researcher's own behind a guard.

An own engine that raises, hangs or answers nonsense costs that decision: the default answers it, an ``engine.failed``
event tells of it, and after ``STRIKES`` failures in a row it is not asked any more.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from controller.plugins.contracts import CONTRACTS, Contract, read_answer
from controller.plugins.loading import DEFAULT
from controller.plugins.outside import EngineFailed, Outside
from controller.values.decisions import Assessment, Hyper, JobView, Load, Measured, Option, Plan, Request
from controller.values.errors import EngineError
from controller.values.knowledge import ModelAt, Node
from controller.values.metrics import OwnMetric
from controller.values.placement import Demand, ModelNeed, Paths, Placement, PlacementSettings, Site
from packets.events import Emit, silent
from packets.queries import Need

STRIKES = 3
Own = Outside | Callable[..., Any]
Chosen = Mapping[str, str]  # {engine: source}: what a job asks for
Borrow = Callable[[str, tuple[Any, ...]], Awaitable[Any]]  # (engine, arguments) -> another K-AS's answer, checked


class Engines:
    """``use``: {engine: source} unless a job says otherwise; ``own``: {(engine, source): engine} of all that may be;
    ``metrics``: what MDFPs report beside the usual, declared.

    Only what a control centre was started with can be chosen: a job names an engine, it never brings one.
    """

    def __init__(
        self,
        use: Mapping[str, str] | None = None,
        own: Mapping[tuple[str, str], Own] | None = None,
        metrics: Mapping[str, OwnMetric] | None = None,
    ) -> None:
        self.use, self.own, self.metrics = dict(use or {}), dict(own or {}), dict(metrics or {})
        self.emit: Emit = silent
        self._borrowed: dict[str, Borrow] = {}
        self._strikes: Counter[tuple[str, str]] = Counter()

    @classmethod
    def of(cls, **functions: Callable[..., Any]) -> Engines:
        """Return engines of which some are functions of this process (sync or async), by engine name."""
        return cls(dict.fromkeys(functions, "own"), {(name, "own"): function for name, function in functions.items()})

    def without(self, borrowed: Mapping[str, Borrow]) -> Engines:
        """Return the same, but for engines that are not here and are borrowed: none of them ever decides here."""
        rest = Engines(self.use, self.own, self.metrics)
        rest._borrowed = dict(borrowed)
        return rest

    def missing(self, chosen: Chosen) -> str:
        """Say which engine that a job asks for this control centre does not have ('': it has them all)."""
        for name, source in chosen.items():
            if name in self._borrowed:
                return f"this control centre has no {name} of its own, it borrows it: leave it out of the job's engines"
            if name not in CONTRACTS or (source != DEFAULT and (name, source) not in self.own):
                return f"this control centre was started without engine {name}={source}"
        return ""

    async def plan(
        self, request: Request, view: JobView, options: list[Option], load: Load | None, chosen: Chosen
    ) -> Plan:
        """MTRCE: the ordered rendezvous from here on; ``EngineError`` when there is none."""
        answer = await self._ask("mtrce", (request, view, options, load), chosen)
        if isinstance(answer, Plan):
            return answer
        from controller.engines.routing.mtrce import follow  # a control centre that only routes does not load it

        return follow(request, view, options, answer, load)

    async def assess(self, request: Request, options: list[Option], verifiers: int, chosen: Chosen) -> Assessment:
        """T-FAM: whether a training request can be met."""
        return await self._ask("tfam", (request, options, verifiers), chosen)  # type: ignore[no-any-return]

    async def choose_method(self, *arguments: Any, chosen: Chosen) -> Any:
        """TAG: which way to train; arguments as of ``controller.engines.training.tag.choose``."""
        return await self._ask("tag", arguments, chosen)

    async def tuned(self, planned: Hyper, request: Request, visit: int, samples: int, chosen: Chosen) -> Hyper:
        """HPO: the hyper-parameters of a visit; the plan's own unless another HPO was chosen."""
        if "hpo" not in self._borrowed and chosen.get("hpo", self.use.get("hpo", DEFAULT)) == DEFAULT:
            return planned
        return await self._ask("hpo", (request, visit, samples), chosen)  # type: ignore[no-any-return]

    async def judge(
        self, request: Request, before: Measured | None, after: Measured, chosen: Chosen
    ) -> tuple[bool, str]:
        """The gate: whether a visit is kept, and why."""
        return await self._ask("gate", (request, before, after), chosen)  # type: ignore[no-any-return]

    async def assess_query(self, task: str, models: list[ModelAt], need: Need, path_ms: dict[str, float]) -> Assessment:
        """Q-FAM: whether a class of queries can be served."""
        return await self._ask("qfam", (task, models, need, path_ms), {})  # type: ignore[no-any-return]

    async def choose(self, models: list[ModelAt], path_ms: dict[str, float]) -> list[tuple[str, int]]:
        """QIRCE: the MDFPs that answer, with weights."""
        return await self._ask("qirce", (models, path_ms), {})  # type: ignore[no-any-return]

    async def place(self, task: str, size_bytes: int, mdfps: list[Node]) -> str:
        """MDO: the MDFP that hosts a model; ``EngineError`` when none can."""
        return await self._ask("mdo", (task, size_bytes, mdfps), {})  # type: ignore[no-any-return]

    async def fallen(self, known: Measured, now: Measured, group_samples: dict[str, int]) -> list[str]:
        """MDO: in what a deployed model has fallen behind what was measured of it ([]: in nothing)."""
        return await self._ask("drift", (known, now, group_samples), {})  # type: ignore[no-any-return]

    async def optimise(
        self,
        sites: list[Site],
        models: list[ModelNeed],
        demands: list[Demand],
        path_ms: Paths,
        prices: PlacementSettings,
    ) -> Placement:
        """MDO: where replicas go, and what to change for it."""
        from controller.engines.inference.placement import optimise  # loaded where models are placed, and only there

        return optimise(sites, models, demands, path_ms, settings=prices)

    async def _ask(self, name: str, arguments: tuple[Any, ...], chosen: Chosen) -> Any:
        if name in self._borrowed:
            return await self._borrowed[name](name, arguments)
        source = chosen.get(name, self.use.get(name, DEFAULT))
        own = self.own.get((name, source))
        if own is None or self._strikes[name, source] >= STRIKES:
            return CONTRACTS[name].of_default(*arguments)
        try:
            answer = await answer_of(CONTRACTS[name], own, arguments)
        except EngineFailed as error:
            self._failed(name, source, str(error))
            return CONTRACTS[name].of_default(*arguments)
        self._strikes[name, source] = 0
        return answer

    def _failed(self, name: str, source: str, fault: str) -> None:
        self._strikes[name, source] += 1
        given_up = self._strikes[name, source] >= STRIKES
        text = f"engine {name}={source}: {fault}; the default decided"
        text += f"; after {STRIKES} failures in a row it is not asked any more" if given_up else ""
        self.emit("engine.failed", engine=name, engine_source=source, fault=fault, given_up=given_up, text=text)

    async def close(self) -> None:
        """End the processes of own engines."""
        for own in self.own.values():
            if isinstance(own, Outside):
                await own.end()


async def answer_of(contract: Contract, own: Own, arguments: tuple[Any, ...]) -> Any:
    """Return an own engine's answer, checked; ``EngineFailed`` for whatever is none."""
    try:
        if isinstance(own, Outside):
            raw = await own.ask(arguments)
        else:
            found: Any | Awaitable[Any] = own(*arguments)
            raw = msgspec.to_builtins(await found if inspect.isawaitable(found) else found)
        return read_answer(contract, arguments, raw)
    except (EngineError, EngineFailed):
        raise
    except Exception as error:
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise EngineFailed(told[:400]) from error
