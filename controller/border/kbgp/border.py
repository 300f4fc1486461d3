"""A control centre's end of KBGP: ``open`` and ``ask`` as of ``border.session.Border``, by way of its gateways."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from controller.border.kbgp import local
from controller.border.kbgp.trust import sign
from controller.border.messages import Announce, Ask, Reply, pack, unpack
from controller.border.session import RETRY_S, Serve
from controller.errors import BorderError
from packets.events import Emit
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import MAX_BODY_BYTES, Answer
from packets.security.identity import Identity

FRAME_LENGTH = 4


class Gateway:
    """The connection to the speaker of one of our gateways."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ways: dict[int, local.Way] = {}
        self.writer: asyncio.StreamWriter | None = None

    def send(self, word: local.Word) -> None:
        """Send a word; nothing when the speaker is away."""
        if self.writer is not None:
            self.writer.write(local.frame(word))


class KbgpBorder:
    """All that one DCC says to others. ``gateways``: the sockets of its speakers, {K-AS: [path]}.

    ``identities`` sign what each K-AS tells of itself (none: an open network).
    """

    def __init__(
        self,
        own: list[int],
        others: list[int],
        gateways: Mapping[int, list[Path]],
        emit: Emit,
        identities: Mapping[int, Identity] | None = None,
    ) -> None:
        self.own, self.others, self.emit = own, others, emit
        self.gateways = {kas: [Gateway(path) for path in paths] for kas, paths in gateways.items()}
        self._identities = dict(identities or {})
        self._epoch_ms, self._serials = int(time.time() * 1000), dict.fromkeys(own, 0)
        self._knowledge = {kas: Knowledge(kas=kas, epoch_ms=self._epoch_ms, serial=0) for kas in own}
        self._waiting: dict[int, tuple[Gateway, asyncio.Future[local.Result]]] = {}
        self._count = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ways(self) -> dict[int, local.Way]:
        """What other K-AS tell of themselves, by the shortest way that any of our gateways knows."""
        found: dict[int, local.Way] = {}
        for gateway in [g for gateways in self.gateways.values() for g in gateways]:
            for kas, way in gateway.ways.items():
                if kas not in found or (way.stale, len(way.path)) < (found[kas].stale, len(found[kas].path)):
                    found[kas] = way
        return found

    async def open(self, serve: Serve) -> None:
        """Start to connect to our gateways, and to answer what comes through them."""
        for kas, gateways in self.gateways.items():
            for gateway in gateways:
                self._keep(self._run(kas, gateway, serve))

    def tell(self, knowledge: Knowledge) -> None:
        """Tell other K-AS what one of ours now looks like; its version is set here."""
        kas = knowledge.kas
        self._serials[kas] += 1
        self._knowledge[kas] = msgspec.structs.replace(knowledge, epoch_ms=self._epoch_ms, serial=self._serials[kas])
        for gateway in self.gateways[kas]:
            gateway.send(self._own_word(kas))

    def _own_word(self, kas: int) -> local.Own:
        identity, knowledge = self._identities.get(kas), self._knowledge[kas]
        return local.Own(knowledge=knowledge, signature=sign(knowledge, identity) if identity else b"")

    def _keep(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, kas: int, gateway: Gateway, serve: Serve) -> None:
        tries = 0
        while True:
            why = ""
            try:
                reader, gateway.writer = await asyncio.open_unix_connection(gateway.path)
                gateway.send(self._own_word(kas))
                tries = 0
                while True:
                    await self._take(kas, gateway, await local.read(reader), serve)
            except (OSError, EOFError) as error:
                why = type(error).__name__
            except BorderError as error:
                why = str(error)
            finally:
                self._broke(gateway, why)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1

    def _broke(self, gateway: Gateway, why: str) -> None:
        if gateway.writer is not None:
            gateway.writer.close()
            if why:
                self.emit(
                    "warning", text=f"border speaker at {gateway.path.name} is away ({why}); looking for it again"
                )
        gateway.writer, gateway.ways = None, {}
        for asked, done in self._waiting.values():
            if asked is gateway and not done.done():
                done.set_exception(BorderError(f"the border speaker at {gateway.path.name} went away"))

    async def _take(self, kas: int, gateway: Gateway, word: local.Word, serve: Serve) -> None:
        if isinstance(word, local.Result):
            _, done = self._waiting.get(word.id, (gateway, None))
            if done is not None and not done.done():
                done.set_result(word)
        elif isinstance(word, local.Ways):
            gateway.ways |= {way.path[-1]: way for way in word.found}
            for gone in word.gone:
                gateway.ways.pop(gone, None)
            async with self._changed:
                self._changed.notify_all()
        elif isinstance(word, local.Question):
            self._keep(self._answer(kas, gateway, word, serve))

    async def _answer(self, kas: int, gateway: Gateway, asked: local.Question, serve: Serve) -> None:
        try:
            body = unpack(asked.body).body
            if not isinstance(body, Ask) or body.kas != kas:
                raise BorderError(f"{type(body).__name__} where a request to K-AS {kas} belongs")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BorderError) as error:
            self.emit("error", text=f"K-AS {asked.trail and asked.trail[0]} sent no request: {error}")
            gateway.send(local.Result(id=asked.id, code=Answer.REFUSED, reason=str(error)[:200]))
            return
        reply = pack(0, await serve(body))[FRAME_LENGTH:]
        if len(reply) > MAX_BODY_BYTES:
            self.emit("error", text=f"the answer to {type(body).__name__} is larger than {MAX_BODY_BYTES} bytes")
            gateway.send(local.Result(id=asked.id, code=Answer.REFUSED, reason="the answer is too large"))
            return
        gateway.send(local.Result(id=asked.id, code=Answer.ANSWERED, body=reply))

    async def ask(self, kas: int, body: Ask, timeout_s: float = 5.0) -> Reply:
        """Send a request to the DCC of a K-AS; ``BorderError`` when there is no way, or no answer in time."""
        if kas not in self.others:
            raise BorderError(f"K-AS {kas} is not in the plan of this DCC")
        name, data = type(body).__name__, pack(0, body)[FRAME_LENGTH:]
        if len(data) > MAX_BODY_BYTES:
            raise BorderError(f"{name} to K-AS {kas} of {len(data)} bytes is larger than {MAX_BODY_BYTES}")
        self._count += 1
        number, end_s = self._count, time.monotonic() + timeout_s
        done: asyncio.Future[local.Result] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                gateway = await self._gateway(kas)
                self._waiting[number] = gateway, done
                left_ms = min(max(int((end_s - time.monotonic()) * 1000), 1), 600_000)
                question = local.Question(id=number, to_kas=kas, left_ms=left_ms, body=data)
                if isinstance(body, Announce):
                    question = msgspec.structs.replace(question, object_id=body.object_id, visit=body.visit)
                gateway.send(question)
                result = await done
        except TimeoutError as error:
            raise BorderError(f"the DCC of K-AS {kas} did not answer {name} within {timeout_s:g} s") from error
        finally:
            self._waiting.pop(number, None)
        return self._read(kas, name, result)

    def _read(self, kas: int, name: str, result: local.Result) -> Reply:
        if result.code != Answer.ANSWERED:
            raise BorderError(f"the DCC of K-AS {kas} did not answer {name}: {result.reason}")
        try:
            body = unpack(result.body).body
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BorderError(f"the DCC of K-AS {kas} answered {name} with no message: {error}") from error
        if not isinstance(body, Reply):
            raise BorderError(f"the DCC of K-AS {kas} answered {name} with {type(body).__name__}")
        return body

    async def _gateway(self, kas: int) -> Gateway:
        """Return the gateway with the shortest way to a K-AS; waits until there is one."""
        everyone = [g for gateways in self.gateways.values() for g in gateways]
        async with self._changed:
            await self._changed.wait_for(lambda: any(kas in g.ways for g in everyone))
        return min((g for g in everyone if kas in g.ways), key=lambda g: (g.ways[kas].stale, len(g.ways[kas].path)))

    def close(self) -> None:
        """Leave our gateways."""
        for task in self._tasks:
            task.cancel()
        for gateway in [g for gateways in self.gateways.values() for g in gateways]:
            with contextlib.suppress(OSError):
                if gateway.writer is not None:
                    gateway.writer.close()
