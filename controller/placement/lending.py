"""The engines that a K-AS lends to others that have none: it decides on what they send, and on nothing else.

Each runs in a process of its own, beside that of an engine of one's own (``controller.plugins.outside``): whatever is
asked, by a borrower that lies, too, costs a few seconds of that process and never this control centre.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from controller.border.lending import MAX_ANSWER_BYTES, AskEngine, Lent
from controller.errors import LendingError
from controller.plugins.contracts import CONTRACTS, Contract
from controller.plugins.engines import Engines, Own, answer_of
from controller.plugins.loading import DEFAULT
from controller.plugins.outside import EngineFailed, Outside
from controller.values.errors import EngineError
from packets.events import Emit

MOST_WAITING = 4  # questions; whoever comes then is better served by another lender


class Lending:
    """Decides for other K-AS. ``lends``: {engine: K-AS that may borrow it}; engines of one's own are lent as such."""

    def __init__(
        self, engines: Engines, lends: Mapping[str, Sequence[int]], clock: Callable[[], float], emit: Emit
    ) -> None:
        self.lends, self._clock, self._emit = lends, clock, emit
        self._sources = {name: engines.use.get(name, DEFAULT) for name in lends}
        self._engines = {name: _apart(engines, name, source) for name, source in self._sources.items()}
        self._waiting = 0

    async def warm(self) -> None:
        """Start what is lent, so that the first who asks does not wait for it; ``EngineFailed``."""
        for engine in self._engines.values():
            if isinstance(engine, Outside):
                await engine.ready()

    async def answer(self, ask: AskEngine) -> Lent:
        """Decide for another K-AS; ``LendingError`` when its question is not one, or gets no answer here."""
        if ask.from_kas not in self.lends.get(ask.engine, ()):
            raise LendingError(f"K-AS {ask.kas} lends no {ask.engine} to K-AS {ask.from_kas}")
        contract = CONTRACTS[ask.engine]
        arguments = _read(contract, ask.arguments)
        if self._waiting >= MOST_WAITING:
            raise LendingError(f"{self._waiting} questions wait for its engines")
        began_s = self._clock()
        self._waiting += 1
        try:
            lent = await self._decided(contract, arguments)
        except EngineFailed as error:
            self._tell(ask, began_s, str(error))
            raise LendingError(f"its {contract.paper} gave no answer") from error
        finally:
            self._waiting -= 1
        self._tell(ask, began_s)
        return msgspec.structs.replace(lent, took_ms=self._ms(began_s), own=self._sources[ask.engine] != DEFAULT)

    async def _decided(self, contract: Contract, arguments: tuple[Any, ...]) -> Lent:
        try:
            found = await answer_of(contract, self._engines[contract.name], arguments)
        except EngineError as error:
            return Lent(none=(str(error) or "there is no answer")[:400])
        answer = msgspec.msgpack.encode(found)
        if len(answer) > MAX_ANSWER_BYTES:
            raise EngineFailed(f"an answer of {len(answer)} bytes is larger than {MAX_ANSWER_BYTES}")
        return Lent(answer=answer)

    def _ms(self, began_s: float) -> float:
        return round((self._clock() - began_s) * 1e3, 1)

    def _tell(self, ask: AskEngine, began_s: float, fault: str = "") -> None:
        took_ms, paper = self._ms(began_s), CONTRACTS[ask.engine].paper
        text = f"{paper} decided for K-AS {ask.from_kas} in {took_ms:.0f} ms" + (f": {fault}" if fault else "")
        self._emit(
            "engine.lent", engine=ask.engine, kas=ask.kas, to=ask.from_kas, took_ms=took_ms, fault=fault, text=text
        )

    async def close(self) -> None:
        """End the processes of what is lent."""
        for engine in self._engines.values():
            if isinstance(engine, Outside):
                await engine.end()


def _apart(engines: Engines, name: str, source: str) -> Own:
    """Return an engine beside the one that decides here: a borrower's question keeps none of ours waiting."""
    own = engines.own.get((name, source))
    return own if own is not None and not isinstance(own, Outside) else Outside(name, source)


def _read(contract: Contract, arguments: bytes) -> tuple[Any, ...]:
    try:
        found: tuple[Any, ...] = msgspec.msgpack.decode(arguments, type=contract.arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LendingError(f"that is no question to {contract.paper}: {error}") from None
    return found
