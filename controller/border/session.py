"""The border speaker: sessions between the control centres of different K-AS, over unix sockets of one run.

Every DCC serves its own socket and keeps one outgoing session to every other K-AS for its own requests.  A session that
breaks is opened again; malformed input ends that session with an error event, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from controller.border.messages import MAX_FRAME_BYTES, PROTOCOL_VERSION, Ask, Envelope, Hello, Reply, pack, unpack
from controller.errors import BorderError, PortTaken
from packets.events import Emit

Serve = Callable[[Ask], Awaitable[Reply]]
RETRY_S = (0.1, 0.2, 0.5, 1.0)


def socket_path(runtime_dir: Path, kas: int) -> Path:
    """Return where the DCC of a K-AS listens."""
    return runtime_dir / f"dcc{kas}.sock"


async def read_envelope(reader: asyncio.StreamReader) -> Envelope:
    """Read one frame; ``BorderError`` when it is malformed, ``IncompleteReadError`` at the end of the session."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME_BYTES:
        raise BorderError(f"border frame of {size} bytes is larger than {MAX_FRAME_BYTES}")
    try:
        return unpack(await reader.readexactly(size))
    except msgspec.DecodeError as error:
        raise BorderError(f"border frame of {size} bytes is no message: {error}") from error


def check_hello(envelope: Envelope) -> Hello:
    """Return the greeting; ``BorderError`` when it is none, or speaks another version."""
    if not isinstance(envelope.body, Hello):
        raise BorderError(f"border session opened with {type(envelope.body).__name__}, not Hello")
    if envelope.body.version != PROTOCOL_VERSION:
        raise BorderError(f"border session of version {envelope.body.version}, this DCC speaks {PROTOCOL_VERSION}")
    return envelope.body


class Session:
    """One outgoing session to another K-AS: requests with numbers, replies matched to them."""

    def __init__(self, own: list[int], kas: int, path: Path, emit: Emit) -> None:
        self.own, self.kas, self.path, self.emit = own, kas, path, emit
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._count = 0
        self._writer: asyncio.StreamWriter | None = None
        self._open = asyncio.Event()
        self._was_up = False

    async def run(self) -> None:
        """Keep the session open for ever."""
        tries = 0
        while True:
            try:
                await self._one_session()
                tries = 0
            except (OSError, EOFError) as error:
                self._broke(f"{type(error).__name__}", quiet=True)
            except BorderError as error:
                self._broke(str(error), quiet=False)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1

    async def _one_session(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(pack(0, Hello(version=PROTOCOL_VERSION, kas=self.own)))
            check_hello(await read_envelope(reader))
            self._writer, self._was_up = writer, True
            self._open.set()
            self.emit("border.up", kas=self.kas)
            while True:
                self._take(await read_envelope(reader))
        finally:
            writer.close()

    def _take(self, envelope: Envelope) -> None:
        done = self._waiting.get(envelope.id)
        if done is not None and not done.done() and isinstance(envelope.body, Reply):
            done.set_result(envelope.body)

    def _broke(self, why: str, *, quiet: bool) -> None:
        self._writer = None
        self._open.clear()
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(BorderError(f"session to the DCC of K-AS {self.kas} broke: {why}"))
        if self._was_up or not quiet:
            self.emit("warning", text=f"border session to K-AS {self.kas} broke ({why}); opening it again")
        self._was_up = False

    async def ask(self, body: Ask, timeout_s: float) -> Reply:
        """Send a request and return its reply; ``BorderError`` when there is none in time."""
        self._count += 1
        number = self._count
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = done
        try:
            async with asyncio.timeout(timeout_s):
                await self._open.wait()
                assert self._writer is not None
                self._writer.write(pack(number, body))
                return await done
        except TimeoutError as error:
            name = type(body).__name__
            raise BorderError(f"the DCC of K-AS {self.kas} did not answer {name} within {timeout_s:g} s") from error
        finally:
            del self._waiting[number]


class Border:
    """All sessions of one DCC."""

    def __init__(self, own: list[int], others: list[int], runtime_dir: Path, emit: Emit) -> None:
        self.own, self.runtime_dir, self.emit = own, runtime_dir, emit
        self.sessions = {k: Session(own, k, socket_path(runtime_dir, k), emit) for k in others}
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def open(self, serve: Serve) -> None:
        """Listen and start to connect; ``PortTaken`` when another DCC of this K-AS runs on the same directory."""
        for kas in self.own:
            path = socket_path(self.runtime_dir, kas)
            await self._check_free(path)
            server = await asyncio.start_unix_server(lambda r, w: self._serve_session(r, w, serve), path)
            path.chmod(0o600)
            self._servers.append(server)
        for session in self.sessions.values():
            self._keep(asyncio.create_task(session.run()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check_free(self, path: Path) -> None:
        if not path.exists():
            return
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(path)
            writer.close()
            raise PortTaken(
                f"{path}: another control centre of this K-AS is running; end it, or give another --runtime-dir"
            )
        path.unlink()

    async def _serve_session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve) -> None:
        try:
            hello = check_hello(await read_envelope(reader))
            writer.write(pack(0, Hello(version=PROTOCOL_VERSION, kas=self.own)))
            while True:
                self._keep(asyncio.create_task(self._answer(await read_envelope(reader), writer, hello, serve)))
        except BorderError as error:
            self.emit("error", text=str(error))
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, envelope: Envelope, writer: asyncio.StreamWriter, hello: Hello, serve: Serve) -> None:
        if not isinstance(envelope.body, Ask):
            self.emit("error", text=f"K-AS {hello.kas} sent {type(envelope.body).__name__} where a request belongs")
            return
        reply = await serve(envelope.body)
        with contextlib.suppress(OSError):
            writer.write(pack(envelope.id, reply))

    async def ask(self, kas: int, body: Ask, timeout_s: float = 5.0) -> Reply:
        """Send a request to the DCC of a K-AS; ``BorderError`` when it refuses, or does not answer in time."""
        session = self.sessions.get(kas)
        if session is None:
            raise BorderError(f"K-AS {kas} is not in the plan of this DCC")
        return await session.ask(body, timeout_s)

    def close(self) -> None:
        """End all sessions, stop listening and remove the sockets."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        for kas in self.own:
            socket_path(self.runtime_dir, kas).unlink(missing_ok=True)
