"""Worker threads for callbacks: somebody else's code, which may take seconds, away from the I/O thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


class Workers:
    """Up to ``count`` threads that run one callback, fed by a queue of ``length`` calls that hold ``waiting_bytes``."""

    def __init__(
        self, name: str, count: int, callback: Callable[..., None], failed: Callable[[Exception], None], *, length: int
    ) -> None:
        self.waiting_bytes = 0
        self._queue: queue.Queue[tuple[int, tuple[Any, ...]] | None] = queue.Queue(length)
        self._callback, self._failed = callback, failed
        self._name, self._count = name, count
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def put(self, *arguments: Any, size: int = 0) -> bool:
        """Queue a call whose arguments weigh ``size`` bytes; False when the queue is full."""
        with self._lock:
            try:
                self._queue.put_nowait((size, arguments))
            except queue.Full:
                return False
            self.waiting_bytes += size
            if self._threads < self._count and self._busy + self._queue.qsize() > self._threads:
                self._threads += 1
                threading.Thread(target=self._work, name=f"ai-{self._name}-{self._threads}", daemon=True).start()
        return True

    def close(self) -> None:
        """Forget what waits, and let the threads end when they have done what they are at."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in range(self._threads):
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            size, arguments = item
            with self._lock:
                self.waiting_bytes -= size
                self._busy += 1
            try:
                self._callback(*arguments)
            except Exception as error:  # somebody else's code: report it, go on
                _log.exception("callback failed")
                self._failed(error)
            finally:
                with self._lock:
                    self._busy -= 1
