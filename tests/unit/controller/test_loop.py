"""The worker of a control centre or a speaker."""

from __future__ import annotations

import asyncio
import inspect

from controller.runtime.loop import Worker
from packets.events import silent


def test_what_is_stopped_before_it_began_is_ended_all_the_same() -> None:
    """Else Python warns of a coroutine that was never awaited, on the terminal of whoever ends a run."""
    began: list[int] = []

    async def duty() -> None:
        began.append(1)

    async def work() -> str:
        worker, waiting = Worker(silent), duty()
        worker.spawn(waiting, "a duty")
        worker.stop()
        await worker.idle()
        return inspect.getcoroutinestate(waiting)

    assert asyncio.run(work()) == inspect.CORO_CLOSED and not began
