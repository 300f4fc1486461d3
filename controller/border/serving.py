"""What control centres ask each other (and themselves): rooms register for the types of message that are their own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from controller.border.messages import Ask, Done, No, Reply
from controller.domain import Domain
from controller.errors import ControllerError, SteeringError
from controller.runtime.loop import Worker
from controller.topology.errors import TopologyError

AskBorder = Callable[[int, Ask], Awaitable[Reply]]
Kind = TypeVar("Kind")
Handler = Callable[[Kind], Reply | Awaitable[Reply | None] | None]


class Serving:
    """Answers requests by their type; what a handler returns is the reply, nothing means ``Done``.

    Nothing is answered before the control centre has ``resumed`` where an earlier life of it died.
    """

    def __init__(self, domain: Domain, worker: Worker, ask_border: AskBorder) -> None:
        self.domain, self.worker, self._ask_border = domain, worker, ask_border
        self.resumed = asyncio.Event()
        self.resumed.set()
        self._handlers: dict[type, Handler[Any]] = {}

    def on(self, kind: type[Kind], handler: Handler[Kind]) -> None:
        """Have a handler answer every request of a type; ``ControllerError`` from it becomes ``No``."""
        self._handlers[kind] = handler

    async def ask(self, body: Ask) -> Reply:
        """Ask the DCC of a K-AS, ourselves included."""
        return await (self.serve(body) if body.kas in self.domain.kas else self._ask_border(body.kas, body))

    async def serve(self, body: Ask) -> Reply:
        """Answer a request of another DCC (or of ourselves); refusals are ``No`` with a reason."""
        await self.resumed.wait()
        try:
            return await self._answer(body)
        except (ControllerError, TopologyError) as error:
            return No(reason=str(error))
        except Exception as error:
            self.worker.report(error, f"serving {type(body).__name__}")
            return No(reason=f"{type(body).__name__} failed in the DCC of K-AS {body.kas}: {error}")

    async def _answer(self, body: Ask) -> Reply:
        if body.kas not in self.domain.kas:
            raise SteeringError(f"this is not the DCC of K-AS {body.kas}")
        handler = self._handlers.get(type(body))
        if handler is None:
            raise SteeringError(f"a DCC answers no {type(body).__name__}")
        answer = handler(body)
        reply = await answer if inspect.isawaitable(answer) else answer
        return Done() if reply is None else reply
