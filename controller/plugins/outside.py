"""An engine that runs in a process of its own, so that whatever it does costs a decision and no control centre.

A thread could not be ended when it hangs, and a fork of a process with threads may hang by itself; a process that was
started for it can be ended at any time, and its crash, its memory and its prints are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from controller.plugins.worker import MAX_FRAME_BYTES, Said
from controller.values.errors import EngineError

LIMIT_S = 3.0  # of one decision
START_S = 30.0  # of loading its file, and whatever that imports


class EngineFailed(Exception):
    """An engine of one's own gave no answer; the message says why."""


class Outside:
    """One engine of one's own. Started when first asked, and again after it had to be ended."""

    def __init__(self, engine: str, spec: str, limit_s: float = LIMIT_S) -> None:
        self.engine, self.spec, self.limit_s = engine, spec, limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def ask(self, arguments: Sequence[Any]) -> Any:
        """Return the engine's answer as plain values; ``EngineError``: it says that there is none; ``EngineFailed``."""
        async with self._lock:
            process = self._process or await self.start()
            assert process.stdin is not None
            data = msgspec.msgpack.encode(tuple(arguments))
            try:
                process.stdin.write(len(data).to_bytes(4, "big") + data)
                said = await self._hear(process, self.limit_s)
            except OSError as error:
                said = Said(fault=f"its process is gone: {error}")
                await self.end()
            except asyncio.CancelledError:  # its answer would be taken for that to the next question
                await self.end()
                raise
        if said.fault:
            raise EngineFailed(said.fault)
        if said.none:
            raise EngineError(said.none)
        return said.answer

    async def ready(self) -> None:
        """Have its process run; ``EngineFailed`` when its file cannot be loaded."""
        async with self._lock:
            if self._process is None:
                await self.start()

    async def start(self) -> asyncio.subprocess.Process:
        """Start the engine's process; ``EngineFailed`` when its file cannot be loaded."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controller.plugins.worker", self.engine, self.spec,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = await self._hear(self._process, START_S)
        if said.fault:
            await self.end()
            raise EngineFailed(said.fault)
        return self._process

    async def _hear(self, process: asyncio.subprocess.Process, limit_s: float) -> Said:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                size = int.from_bytes(await process.stdout.readexactly(4), "big")
                if size > MAX_FRAME_BYTES:
                    raise ValueError(f"an answer of {size} bytes")
                return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Said)
        except TimeoutError:
            await self.end()
            return Said(fault=f"no answer within {limit_s:g} s")
        except (asyncio.IncompleteReadError, ValueError) as error:
            await self.end()
            ended = isinstance(error, asyncio.IncompleteReadError)
            return Said(fault="its process ended" if ended else f"its answer cannot be read: {error}")

    async def end(self) -> None:
        """End the engine's process."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
