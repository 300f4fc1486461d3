"""The engines that a K-AS does not have (non-standalone): others' are asked, one lender after the other, never a copy
of one's own: what none of them decides is not decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from controller.border.lending import MAX_QUESTION_BYTES, AskEngine, Lent
from controller.border.messages import Ask, No, Reply
from controller.errors import BorderError
from controller.plugins.contracts import CONTRACTS, Contract, read_answer
from controller.values.decisions import Assessment, Lender, Plan
from controller.values.errors import EngineError, NoLender
from packets.events import Emit

AWAY_S = 10.0  # who gave no answer is asked after all others for so long
TOLD_CHARS = 70


class Borrowing:
    """Asks the lenders of each engine in turn. ``lenders``: {engine: K-AS}; each has ``timeout_s`` to answer."""

    def __init__(
        self,
        kas: int,
        lenders: Mapping[str, Sequence[int]],
        timeout_s: float,
        ask: Callable[[Ask], Awaitable[Reply]],
        clock: Callable[[], float],
        emit: Emit,
    ) -> None:
        self.kas, self.lenders, self.timeout_s = kas, lenders, timeout_s
        self._ask, self._clock, self._emit = ask, clock, emit
        self._away_until_s: dict[int, float] = {}

    async def decide(self, engine: str, arguments: tuple[Any, ...]) -> Any:
        """Return the first answer of a lender; ``EngineError``: it says that there is none; ``NoLender``."""
        contract, question = CONTRACTS[engine], msgspec.msgpack.encode(arguments)
        before = list[str]()
        if len(question) > MAX_QUESTION_BYTES:
            raise NoLender(f"a question of {len(question)} bytes is too large to borrow {contract.paper} for")
        for kas in self._in_turn(engine):
            began_s = self._clock()
            try:
                lent, answer = await self._of(kas, contract, arguments, question)
            except (BorderError, TimeoutError) as error:
                self._away_until_s[kas] = self._clock() + AWAY_S
                before.append(f"K-AS {kas}: {self._why(error)}")
                continue
            self._away_until_s.pop(kas, None)
            by = Lender(kas=kas, ms=round((self._clock() - began_s) * 1e3, 1), own=lent.own, before=before)
            self._tell(engine, by, lent)
            if lent.none:
                raise EngineError(_one_line(lent.none))
            if engine == "mtrce" and not isinstance(answer, Plan):  # the order alone: what it costs is reckoned here
                from controller.engines.routing.mtrce import follow  # only who plans loads it

                request, view, options, load = arguments
                answer = follow(request, view, options, answer, load)
            return msgspec.structs.replace(answer, by=by) if isinstance(answer, Assessment | Plan) else answer
        self._tell(engine, Lender(kas=0, ms=0.0, before=before), None)
        raise NoLender(f"K-AS {self.kas} has no {contract.paper} of its own, nobody lent it one: {'; '.join(before)}")

    def _in_turn(self, engine: str) -> list[int]:
        now_s = self._clock()
        return sorted(self.lenders[engine], key=lambda kas: self._away_until_s.get(kas, now_s) > now_s)

    async def _of(self, kas: int, contract: Contract, arguments: tuple[Any, ...], question: bytes) -> tuple[Lent, Any]:
        """Ask one lender; ``BorderError`` for an answer that is none, ``TimeoutError``."""
        word = AskEngine(kas=kas, from_kas=self.kas, engine=contract.name, arguments=question)
        async with asyncio.timeout(self.timeout_s):
            reply = await self._ask(word)
        if isinstance(reply, No):
            raise BorderError(reply.reason)
        if not isinstance(reply, Lent):
            raise BorderError(f"it answered with {type(reply).__name__}")
        return reply, None if reply.none else _read(contract, arguments, reply.answer)

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout_s:g} s"
        return _one_line(str(error))[:TOLD_CHARS]

    def _tell(self, engine: str, by: Lender, lent: Lent | None) -> None:
        paper = CONTRACTS[engine].paper
        text = f"K-AS {by.kas}'s {paper} decided, after {by.ms:.0f} ms" if by.kas else f"nobody lent {paper}"
        text += f"; before: {'; '.join(by.before)}" if by.before else ""
        self._emit(
            "engine.borrowed", engine=engine, kas=self.kas, lender=by.kas, took_ms=by.ms,
            lender_ms=lent.took_ms if lent else 0.0, own=by.own, before=by.before, text=text,
        )  # fmt: skip


def _read(contract: Contract, arguments: tuple[Any, ...], answer: bytes) -> Any:
    try:
        found = read_answer(contract, arguments, msgspec.msgpack.decode(answer))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BorderError(f"its answer is none: {error}") from None
    if isinstance(found, Plan):
        offered = {o.handle: o for o in arguments[2]}
        if any(step.option != offered[step.option.handle] for step in found.steps):
            raise BorderError("its plan changes what is on offer")
    return found


def _one_line(told: str) -> str:
    return " ".join(told.split())
