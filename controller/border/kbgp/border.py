"""A control centre's end of KBGP: all that it says to others goes by way of its gateways' border speakers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from controller.border.kbgp import local
from controller.border.kbgp.trust import sign
from controller.border.lending import AskEngine
from controller.border.messages import Announce, Ask, CopyModel, Reply, pack, unpack
from controller.errors import BorderError, BorderSilent
from packets.events import Emit
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import MAX_BODY_BYTES, Answer
from packets.security.clock import unix_ms
from packets.security.identity import Identity

Serve = Callable[[Ask], Awaitable[Reply]]
RETRY_S = (0.05, 0.1, 0.2)
PATIENCE_S, PAUSE_S = 1.5, 0.1  # with a way or a speaker that will be there again in a moment
AWAY_S = 4.0  # with a control centre that is started again, from nothing if it has to be
NOT_TAKEN = (Answer.ABSENT, Answer.UNREACHABLE)  # nobody has heard it: it may be said again
FRAME_LENGTH = 4


class Gateway:
    """The connection to the speaker of one of our gateways. ``down``: neighbours to which none of its links is up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ways: dict[int, local.Way] = {}
        self.down: list[int] = []
        self.writer: asyncio.StreamWriter | None = None

    def send(self, word: local.Word) -> None:
        """Send a word; nothing when the speaker is away."""
        if self.writer is not None:
            self.writer.write(local.frame(word))


class KbgpBorder:
    """All that one DCC says to others. ``gateways``: the sockets of its speakers, {K-AS: [path]}.

    ``identities`` sign what each K-AS tells of itself (none: an open network); ``epoch_ms``: larger than in any earlier
    life; ``before`` is called before anything is said: what it rests on is to be written down by then.
    """

    def __init__(
        self,
        own: list[int],
        others: list[int],
        gateways: Mapping[int, list[Path]],
        emit: Emit,
        identities: Mapping[int, Identity] | None = None,
        epoch_ms: int = 0,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.own, self.others, self.emit, self.before = own, others, emit, before
        self.gateways = {kas: [Gateway(path) for path in paths] for kas, paths in gateways.items()}
        self._everyone = [g for of_kas in self.gateways.values() for g in of_kas]
        self._told_ways: dict[int, list[int]] = {}
        self._identities = dict(identities or {})
        self._epoch_ms, self._serials = epoch_ms or unix_ms(), dict.fromkeys(own, 0)
        self._knowledge = {kas: Knowledge(kas=kas, epoch_ms=self._epoch_ms, serial=0) for kas in own}
        self._waiting: dict[int, tuple[Gateway, asyncio.Future[local.Result]]] = {}
        self._count = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ways(self) -> dict[int, local.Way]:
        """What other K-AS tell of themselves, by the shortest way that any of our gateways knows."""
        found: dict[int, local.Way] = {}
        for gateway in self._everyone:
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
        """Tell other K-AS what one of ours now looks like, when that is news; its version is set here."""
        kas, last = knowledge.kas, self._knowledge[knowledge.kas]
        if msgspec.structs.replace(knowledge, epoch_ms=last.epoch_ms, serial=last.serial) == last:
            return
        self._serials[kas] += 1
        self._knowledge[kas] = msgspec.structs.replace(knowledge, epoch_ms=self._epoch_ms, serial=self._serials[kas])
        for gateway in self.gateways[kas]:
            gateway.send(self._own_word(kas))

    def cut_off(self, path: Path, down: Iterable[int]) -> None:
        """Tell a gateway to which neighbouring K-AS none of its links is up, when that is news."""
        for gateway in self._everyone:
            if gateway.path == path and gateway.down != (now := sorted(down)):
                gateway.down = now
                gateway.send(local.Down(kas=now))

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
                if gateway.down:
                    gateway.send(local.Down(kas=gateway.down))
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
        self._tell_ways()
        for asked, done in self._waiting.values():
            if asked is gateway and not done.done():
                done.set_exception(BorderSilent(f"the border speaker at {gateway.path.name} went away"))

    async def _take(self, kas: int, gateway: Gateway, word: local.Word, serve: Serve) -> None:
        if isinstance(word, local.Result):
            _, done = self._waiting.get(word.id, (gateway, None))
            if done is not None and not done.done():
                done.set_result(word)
        elif isinstance(word, local.Ways):
            gateway.ways |= {way.path[-1]: way for way in word.found}
            for gone in word.gone:
                gateway.ways.pop(gone, None)
            self._tell_ways()
            async with self._changed:
                self._changed.notify_all()
        elif isinstance(word, local.Question):
            self._keep(self._answer(kas, gateway, word, serve))

    def _tell_ways(self) -> None:
        """Say which K-AS are now reached, by which others (none: not any more)."""
        now = {kas: way.path for kas, way in self.ways.items()}
        for kas in sorted(now.keys() | self._told_ways.keys()):
            if now.get(kas) != self._told_ways.get(kas):
                self.emit("border.way", kas=self.own[0], to=kas, path=now.get(kas, []))
        self._told_ways = now

    async def _answer(self, kas: int, gateway: Gateway, asked: local.Question, serve: Serve) -> None:
        try:
            body = unpack(asked.body).body
            if not isinstance(body, Ask) or body.kas != kas:
                raise BorderError(f"{type(body).__name__} where a request to K-AS {kas} belongs")
            if isinstance(body, AskEngine) and asked.trail and body.from_kas != asked.trail[0]:
                raise BorderError(f"{type(body).__name__} of K-AS {body.from_kas}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BorderError) as error:
            self.emit("error", text=f"K-AS {asked.trail and asked.trail[0]} sent no request: {error}")
            gateway.send(local.Result(id=asked.id, code=Answer.REFUSED, reason=str(error)[:200]))
            return
        reply = pack(0, await serve(body))[FRAME_LENGTH:]
        self.before()
        if len(reply) > MAX_BODY_BYTES:
            self.emit("error", text=f"the answer to {type(body).__name__} is larger than {MAX_BODY_BYTES} bytes")
            gateway.send(local.Result(id=asked.id, code=Answer.REFUSED, reason="the answer is too large"))
            return
        gateway.send(local.Result(id=asked.id, code=Answer.ANSWERED, body=reply))

    async def ask(self, kas: int, body: Ask, timeout_s: float = 5.0) -> Reply:
        """Send a request to the DCC of a K-AS; ``BorderError`` when there is no way, or no answer in time."""
        if kas not in self.others:
            raise BorderError(f"K-AS {kas} is not in the plan of this DCC")
        self.before()
        name, data = type(body).__name__, pack(0, body)[FRAME_LENGTH:]
        if len(data) > MAX_BODY_BYTES:
            raise BorderError(f"{name} to K-AS {kas} of {len(data)} bytes is larger than {MAX_BODY_BYTES}")
        question = local.Question(id=0, to_kas=kas, left_ms=0, body=data)
        if isinstance(body, Announce):
            question = msgspec.structs.replace(question, object_id=body.object_id, visit=body.visit)
        began_s = time.monotonic()
        end_s = began_s + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._once(question, end_s)
                # what was cut off may have been heard: it is said again where that does no more than once
                again = NOT_TAKEN if isinstance(body, CopyModel) else (*NOT_TAKEN, Answer.CUT)
                while result.code in again and time.monotonic() < began_s + _patience_s(result.code):
                    await asyncio.sleep(PAUSE_S)
                    result = await self._once(question, end_s)
        except TimeoutError as error:
            raise BorderSilent(f"the DCC of K-AS {kas} did not answer {name} within {timeout_s:g} s") from error
        return self._read(kas, name, result)

    async def _once(self, question: local.Question, end_s: float) -> local.Result:
        gateway = await self._gateway(question.to_kas)
        self._count += 1
        number, done = self._count, asyncio.get_running_loop().create_future()
        self._waiting[number] = gateway, done
        left_ms = min(max(int((end_s - time.monotonic()) * 1000), 1), 600_000)
        try:
            gateway.send(msgspec.structs.replace(question, id=number, left_ms=left_ms))
            result: local.Result = await done
        finally:
            self._waiting.pop(number, None)
        return result

    def _read(self, kas: int, name: str, result: local.Result) -> Reply:
        if result.code != Answer.ANSWERED:
            silent = BorderError if result.code in (Answer.REFUSED, Answer.HOP_LIMIT) else BorderSilent
            raise silent(f"the DCC of K-AS {kas} did not answer {name}: {result.reason}")
        try:
            body = unpack(result.body).body
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BorderError(f"the DCC of K-AS {kas} answered {name} with no message: {error}") from error
        if not isinstance(body, Reply):
            raise BorderError(f"the DCC of K-AS {kas} answered {name} with {type(body).__name__}")
        return body

    async def _gateway(self, kas: int) -> Gateway:
        """Return the gateway with the shortest way to a K-AS; ``BorderError`` when there is none in a moment."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._changed:
                await self._changed.wait_for(lambda: any(kas in g.ways for g in self._everyone))
        except TimeoutError:
            raise BorderSilent(f"no gateway knows a way to K-AS {kas}") from None
        known = (g for g in self._everyone if kas in g.ways)
        return min(known, key=lambda g: (g.ways[kas].stale, len(g.ways[kas].path)))

    def close(self) -> None:
        """Leave our gateways, with a word."""
        for task in self._tasks:
            task.cancel()
        self._told_ways = {}
        for gateway in self._everyone:
            gateway.ways = {}
            with contextlib.suppress(OSError):
                gateway.send(local.Leave())
                if gateway.writer is not None:
                    gateway.writer.close()


def _patience_s(code: int) -> float:
    """Return how long a question that ended so is asked again."""
    return AWAY_S if code in (Answer.ABSENT, Answer.CUT) else PATIENCE_S
