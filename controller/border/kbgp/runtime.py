"""Drives a border speaker's core: TLS connections, the unix socket of its control centre, and time.

Queues are bounded: who does not read what we send loses its session, and asks again.  Whatever comes in from outside
ends at worst its own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from pathlib import Path

from controller.border.kbgp import local, tls
from controller.border.kbgp.core import Core
from controller.border.kbgp.effects import Changed, Close, Dial, Effect, Say, Send, Tell
from controller.border.kbgp.rib import Route
from controller.border.kbgp.session import Connection, Session
from controller.errors import BorderError, PortTaken
from controller.runtime.loop import Worker
from packets.errors import IdentityError
from packets.events import Emit
from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, text_to_sign
from packets.kbgp.messages import HEADER, Announce, KbgpError, Reply, Request, decode, encode, split
from packets.security.identity import Directory

TICK_S = 0.05
HANDSHAKE_S = 5.0
MOST_WAITING_BYTES = 8 << 20  # what a neighbour may leave unread
MOST_STRANGERS = 64  # connections at a time that have not yet said who they are
FLUSH_S = 0.5
SWEEP_S = 1.0  # from a connection's end until what it leaves is looked for


class Runtime:
    """One speaker at work."""

    def __init__(
        self, core: Core, files: tls.Files, directory: Directory, socket: Path, emit: Emit, worker: Worker
    ) -> None:
        self.core, self.directory, self.socket, self.emit, self.worker = core, directory, socket, emit, worker
        self._server_tls, self._client_tls = tls.context(files, server=True), tls.context(files, server=False)
        self._writers: dict[Connection, asyncio.StreamWriter] = {}
        self._dcc: asyncio.StreamWriter | None = None
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self.port = 0

    async def open(self) -> None:
        """Listen, and start to connect; ``PortTaken`` when somebody else listens there."""
        config = self.core.config
        await self._open_socket()
        try:
            server = await asyncio.start_server(
                self._accepted, config.address, config.port, ssl=self._server_tls, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:
            where = f"KBGP port {config.port} on {config.address}"
            raise PortTaken(f"{where}: {error.strerror}; end who listens there, or choose another") from error
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        self.worker.spawn(self._tick(), "border timers")

    async def _open_socket(self) -> None:
        if self.socket.exists():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(self.socket)
                writer.close()
                raise PortTaken(f"{self.socket}: another border speaker of this gateway is running; end it first")
            self.socket.unlink()
        self._servers.append(await asyncio.start_unix_server(self._serve_dcc, self.socket))
        self.socket.chmod(0o600)

    async def close(self, *, word: bool = True) -> None:
        """End all sessions and stop listening; ``word``: with a NOTIFICATION, so that neighbours wait for nobody."""
        for server in self._servers:
            server.close()
        if word:
            self.core.stop(time.monotonic())
            self._do()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    while any(w.transport.get_write_buffer_size() for w in self._writers.values()):
                        await asyncio.sleep(0.01)
        for writer in [*self._writers.values(), *([self._dcc] if self._dcc else [])]:
            writer.transport.abort()
        self.worker.stop()
        self.socket.unlink(missing_ok=True)

    async def _tick(self) -> None:
        while True:
            self.core.tick(time.monotonic())
            self._do()
            await asyncio.sleep(TICK_S)

    # --- effects -------------------------------------------------------------------------------------------------

    def _do(self) -> None:
        for effect in self.core.take():
            self._effect(effect)

    def _effect(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._write(effect.connection, encode(effect.message))
        elif isinstance(effect, Dial):
            self.worker.spawn(self._dial(effect.session), "border connection")
        elif isinstance(effect, Close):
            if (writer := self._writers.pop(effect.connection, None)) is not None:
                self._hang_up(writer)
        elif isinstance(effect, Tell):
            self._tell(effect.message)
        elif isinstance(effect, Changed):
            self._tell_ways(effect.routes)
        elif isinstance(effect, Say):
            self.emit(effect.kind, **effect.data)

    def _write(self, connection: Connection, data: bytes) -> None:
        writer = self._writers.get(connection)
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() + len(data) > MOST_WAITING_BYTES:
            self.emit("error", text=f"border session with {connection.name}: it reads nothing; ending it")
            writer.transport.abort()
            return
        writer.write(data)

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self.worker.spawn(self._gone(writer), "end of a border connection")

    async def _gone(self, writer: asyncio.StreamWriter) -> None:
        """Wait until a connection is closed; a peer that reads nothing does not keep it open."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()
        except OSError:
            pass

    def _sweep_soon(self) -> None:
        """Look for what ended connections leave: circles with a buffer of 256 KiB each, seldom found otherwise."""
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        gc.collect()

    # --- neighbours ----------------------------------------------------------------------------------------------

    async def _dial(self, session: Session) -> None:
        to = session.to
        writer = None
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                reader, writer = await asyncio.open_connection(
                    to.address, to.port, ssl=self._client_tls, ssl_handshake_timeout=HANDSHAKE_S
                )
            name = self._name(writer)
            if name != to.gateway:
                raise IdentityError(f"it is {name}")
        except (OSError, TimeoutError, IdentityError, ValueError) as error:
            if writer is not None:
                writer.transport.abort()
            if isinstance(error, ssl.SSLError | IdentityError):
                self.emit("error", text=f"border connection to {to.gateway} at {to.address}:{to.port}: {error}")
            self.core.dial_failed(session, time.monotonic())
            self._sweep_soon()
            return
        connection = self.core.dialled(session, time.monotonic())
        await self._read(connection, reader, writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = self._name(writer)
        except IdentityError as error:
            self.emit("error", text=f"border connection from {writer.get_extra_info('peername')}: {error}")
            writer.transport.abort()
            self._sweep_soon()
            return
        if len(self.core.unnamed) >= MOST_STRANGERS:
            writer.transport.abort()
            self._sweep_soon()
            return
        await self._read(self.core.accepted(name, time.monotonic()), reader, writer)

    def _name(self, writer: asyncio.StreamWriter) -> str:
        return tls.name_of(writer.get_extra_info("ssl_object"), self.directory)

    async def _read(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[connection] = writer
        self._do()
        try:
            while connection in self._writers:
                kind, size = split(await reader.readexactly(HEADER.size))
                message = decode(kind, await reader.readexactly(size))
                self.core.received(connection, message, time.monotonic())
                self._do()
        except KbgpError as error:
            self.core.broken(connection, error, time.monotonic())
        except (OSError, EOFError):
            pass
        except Exception as error:
            self.worker.report(error, f"border session with {connection.name}")
        finally:
            self.core.closed(connection, time.monotonic())
            self._do()
            if self._writers.pop(connection, None) is not None:
                self._hang_up(writer)
            self._sweep_soon()

    # --- our own control centre ----------------------------------------------------------------------------------

    async def _serve_dcc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._dcc is not None:
            self._dcc.close()  # the one that came last is the one that lives
        self._dcc = writer
        try:
            first = True
            while True:
                self._hear(await local.read(reader))
                if first and self._dcc is writer:
                    self._tell_ways(dict(self.core.rib.best))
                    first = False
                self._do()
        except BorderError as error:
            self.emit("error", text=str(error))
        except (OSError, EOFError):
            pass
        except Exception as error:
            self.worker.report(error, "what the control centre said")
        finally:
            writer.close()
            if self._dcc is writer:
                self._dcc = None
                self.core.left(time.monotonic())
                self._do()

    def _hear(self, word: local.Word) -> None:
        now_s, own = time.monotonic(), self.core.config.kas
        if isinstance(word, local.Own):
            if word.knowledge.kas != own:
                raise BorderError(f"a DCC told of K-AS {word.knowledge.kas} to the gateway of K-AS {own}")
            if (size := len(text_to_sign(word.knowledge))) > MAX_KNOWLEDGE_BYTES:
                raise BorderError(
                    f"a DCC told {size} bytes of its K-AS, at most {MAX_KNOWLEDGE_BYTES} can be passed on"
                )
            self.core.originate(word.knowledge, word.signature, now_s)
        elif isinstance(word, local.Down):
            self.core.cut_off(word.kas, now_s)
        elif isinstance(word, local.Leave):
            self.core.originate(None, b"", now_s)
        elif isinstance(word, local.Question):
            question: Request | Announce = Request(
                id=word.id, to_kas=word.to_kas, trail=[own], left_ms=word.left_ms, body=word.body
            )
            if word.object_id is not None:
                question = Announce(
                    id=word.id, to_kas=word.to_kas, trail=[own], left_ms=word.left_ms, body=word.body,
                    object_id=word.object_id, visit=word.visit,
                )  # fmt: skip
            self.core.ask(question, now_s)
        elif isinstance(word, local.Result):
            self.core.answer(Reply(id=word.id, code=word.code, reason=word.reason, body=word.body))
        else:
            raise BorderError(f"a DCC said {type(word).__name__} to its gateway")

    def _tell(self, message: Request | Announce | Reply) -> None:
        if isinstance(message, Reply):
            self._to_dcc(local.Result(id=message.id, code=message.code, reason=message.reason, body=message.body))
            return
        self._to_dcc(
            local.Question(
                id=message.id, to_kas=message.to_kas, left_ms=message.left_ms, body=message.body, trail=message.trail
            )
        )

    def _tell_ways(self, routes: dict[int, Route | None]) -> None:
        own = self.core.config.kas
        found = [
            local.Way(path=r.path, knowledge=r.advertisement.knowledge, stale=r.stale)
            for r in routes.values()
            if r is not None and r.peer is not None
        ]
        gone = [kas for kas, route in routes.items() if route is None]
        for at in range(0, max(len(found), 1), 16):
            self._to_dcc(local.Ways(kas=own, found=found[at : at + 16], gone=gone if at == 0 else []))

    def _to_dcc(self, word: local.Word) -> None:
        if self._dcc is None:
            return
        data = local.frame(word)
        if self._dcc.transport.get_write_buffer_size() + len(data) > 4 * MOST_WAITING_BYTES:
            self.emit("error", text="the control centre does not read what its border speaker tells it; ending it")
            self._dcc.transport.abort()
            return
        self._dcc.write(data)
