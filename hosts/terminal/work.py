"""Background work of an agent: a few threads and a bounded line, so that the transport's own thread never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

Job = Callable[[], None]


class Submit(Protocol):
    """Take a job; False when there is no room for it (the job is not run)."""

    def __call__(self, job: Job, /) -> bool: ...


class Work:
    """A bounded pool. ``workers`` threads start as they are needed; at most ``limit`` jobs wait or run."""

    def __init__(self, workers: int = 4, limit: int = 64) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="work")
        self._room = threading.BoundedSemaphore(limit)

    def __call__(self, job: Job, /) -> bool:
        if not self._room.acquire(blocking=False):
            return False
        self._pool.submit(job).add_done_callback(lambda _: self._room.release())
        return True


def inline(job: Job, /) -> bool:
    """Run a job at once, in the caller's thread: what tests hand over instead of ``Work``."""
    job()
    return True
