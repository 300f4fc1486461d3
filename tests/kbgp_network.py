"""Border speakers' pure cores on simulated links: time, delays, cuts and restarts without a socket or a clock."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller.border.kbgp.config import Config, Neighbour, Timers
from controller.border.kbgp.core import Core
from controller.border.kbgp.effects import Changed, Close, Dial, Say, Send, Tell
from controller.border.kbgp.relay import Question
from controller.border.kbgp.rib import take_word
from controller.border.kbgp.session import Connection, State
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import HEADER, Answer, Message, Reply, Request, Update, decode, encode, split

STEP_S = 0.05
TIMERS = Timers(hold_ms=1500, open_s=1.0, retry_s=0.2, advertise_s=0.1, restart_s=3, defer_s=1.0)
NEVER = (15.0, 1e9, 750.0, 60.0)  # damping that never suppresses

Name = str
Lie = Callable[[Update], Update]


@dataclass
class Node:
    """A speaker, with what its control centre was told."""

    config: Config
    core: Core
    told: list[Any] = field(default_factory=list)
    said: list[Say] = field(default_factory=list)
    ends: dict[Connection, tuple[Name, Connection]] = field(default_factory=dict)
    frozen: bool = False


class Network:
    """Gateways by name, ``kas.number``; a link is a pair of names and a number."""

    def __init__(
        self, links: list[tuple[Name, Name]], *, seed: int = 0, damping: Any = NEVER, timers: Timers = TIMERS,
        verify: Any = take_word, declared: bool = False,
    ) -> None:  # fmt: skip
        self.now_s, self.rng, self.timers, self.verify = 100.0, random.Random(seed), timers, verify
        self.down: set[str] = set()
        self.wire: deque[tuple[float, Name, Connection, bytes | None]] = deque()
        self.serials: Counter[int] = Counter()
        self.words: dict[int, Knowledge] = {}
        self.lies: dict[Name, Lie] = {}
        self._link_of: dict[Connection, str] = {}
        self.links: dict[str, tuple[Name, Name]] = {}
        for a, b in links:
            number = sum(set(pair) == {a, b} for pair in self.links.values())
            self.links[f"{a}-{b}" + (f"-{number + 1}" if number else "")] = (a, b)
        between = [(self.kas(a), self.kas(b)) for a, b in links] if declared else []
        self.nodes: dict[Name, Node] = {}
        for name in sorted({n for pair in links for n in pair}):
            neighbours = [
                Neighbour(kas=self.kas(b if a == name else a), gateway=b if a == name else a, link=link, port=1)
                for link, (a, b) in self.links.items()
                if name in (a, b)
            ]
            config = Config(
                kas=self.kas(name), gateway=name, neighbours=neighbours, links=between, timers=timers, damping=damping
            )
            self.nodes[name] = Node(config, self._core(config, restarting=False))
        for kas in {self.kas(name) for name in self.nodes}:
            self.originate(f"{kas}.1")

    @staticmethod
    def kas(name: Name) -> int:
        return int(name.split(".")[0])

    def _core(self, config: Config, *, restarting: bool) -> Core:
        boot_ms = int(self.now_s * 1000)
        rng = random.Random(self.rng.random())
        return Core(
            config, boot_ms=boot_ms, now_s=self.now_s, verify=self.verify, restarting=restarting, rng=rng
        )  # fmt: skip

    def originate(self, name: Name, **more: Any) -> None:
        """The control centre behind a gateway says something new, to all gateways of its K-AS."""
        kas = self.kas(name)
        self.serials[kas] += 1
        self.words[kas] = Knowledge(kas=kas, epoch_ms=1, serial=self.serials[kas], **more)
        for node in self.nodes.values():
            if node.config.kas == kas:
                node.core.originate(self.words[kas], b"", self.now_s)

    # --- what happens ------------------------------------------------------------------------------------------------

    def cut(self, link: str) -> None:
        """Nothing crosses any more; nobody is told."""
        self.down.add(link)

    def mend(self, link: str) -> None:
        self.down.discard(link)

    def kill(self, name: Name) -> None:
        """The process ends without a word; its connections are reset."""
        node = self.nodes[name]
        for far in node.ends.values():
            self._put(0.0, far, None)
        node.ends = {}
        node.frozen = True

    def restart(self, name: Name, *, graceful: bool = True) -> None:
        node = self.nodes[name]
        self.kill(name)
        node.frozen, node.core = False, self._core(node.config, restarting=graceful)
        node.core.originate(self.words[self.kas(name)], b"", self.now_s)

    # --- time --------------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += STEP_S
            for name, node in self.nodes.items():
                if not node.frozen:
                    node.core.tick(self.now_s)
                    self._do(name)
            self._deliver()

    def _deliver(self) -> None:
        for _ in range(len(self.wire)):
            due_s, name, connection, data = self.wire.popleft()
            node = self.nodes[name]
            if due_s > self.now_s:
                self.wire.append((due_s, name, connection, data))
            elif not node.frozen and connection in node.ends:
                if data is None:
                    del node.ends[connection]
                    node.core.closed(connection, self.now_s)
                else:
                    kind, size = split(data[: HEADER.size])
                    assert size == len(data) - HEADER.size
                    node.core.received(connection, decode(kind, data[HEADER.size :]), self.now_s)
                self._do(name)

    def _do(self, name: Name) -> None:
        node = self.nodes[name]
        for effect in node.core.take():
            if isinstance(effect, Dial):
                self._dial(name, effect)
            elif isinstance(effect, Send):
                self._send(name, effect.connection, effect.message)
            elif isinstance(effect, Close):
                far = node.ends.pop(effect.connection, None)
                if far is not None:
                    self._put(STEP_S, far, None)
            elif isinstance(effect, Tell):
                node.told.append(effect.message)
                self._answer(node, effect.message)
            elif isinstance(effect, Say):
                node.said.append(effect)
            else:
                assert isinstance(effect, Changed)

    def _answer(self, node: Node, message: Question | Reply) -> None:
        if not isinstance(message, Reply):
            node.core.answer(Reply(id=message.id, code=Answer.ANSWERED, body=message.body[::-1]))
            self._do(node.config.gateway)

    def _dial(self, name: Name, effect: Dial) -> None:
        node, to = self.nodes[name], effect.session.to
        other = self.nodes[to.gateway]
        if to.link in self.down or other.frozen:
            node.core.dial_failed(effect.session, self.now_s)
            return
        far = other.core.accepted(name, self.now_s)
        near = node.core.dialled(effect.session, self.now_s)
        node.ends[near], other.ends[far] = (to.gateway, far), (name, near)
        self._link_of |= {near: to.link, far: to.link}

    def _send(self, name: Name, connection: Connection, message: Message) -> None:
        far = self.nodes[name].ends.get(connection)
        if far is None:
            return
        if isinstance(message, Update) and name in self.lies:
            message = self.lies[name](message)
        self._put(STEP_S * self.rng.randint(1, 3), far, encode(message))

    def _put(self, delay_s: float, to: tuple[Name, Connection], data: bytes | None) -> None:
        """Put something on the wire, behind what is under way on the same connection; a cut link swallows it."""
        if self._link_of[to[1]] in self.down:
            return
        behind = [due_s for due_s, _, connection, _ in self.wire if connection is to[1]]
        self.wire.append((max([self.now_s + delay_s, *behind]), *to, data))

    # --- what is to be seen ------------------------------------------------------------------------------------------

    def up(self, name: Name) -> set[str]:
        """Return the links over which a speaker's sessions stand."""
        return {s.to.link for s in self.nodes[name].core.sessions.values() if s.state is State.ESTABLISHED}

    def known(self, name: Name) -> dict[int, list[int]]:
        """Return {K-AS: path} as a speaker has chosen."""
        return {kas: r.path for kas, r in self.nodes[name].core.rib.best.items()}

    def ask(self, name: Name, to_kas: int, body: bytes = b"abc", left_ms: int = 2000) -> Reply | None:
        """Ask as a control centre does; returns the reply, None when none came within the time."""
        node = self.nodes[name]
        node.told.clear()
        question = Request(id=7, to_kas=to_kas, trail=[node.config.kas], left_ms=left_ms, body=body)
        node.core.ask(question, self.now_s)
        self._do(name)
        end_s = self.now_s + left_ms / 1000 + 1
        while self.now_s < end_s:
            if replies := [m for m in node.told if isinstance(m, Reply)]:
                return replies[0]
            self.run(STEP_S)
        return None

    def reachable(self, name: Name) -> set[int]:
        """Return the K-AS that the links which are up lead to, a speaker's own included."""
        seen, todo = {name}, [name]
        while todo:
            at = todo.pop()
            for link, pair in self.links.items():
                if link not in self.down and at in pair:
                    other = pair[0] if pair[1] == at else pair[1]
                    if other not in seen and not self.nodes[other].frozen:
                        seen.add(other)
                        todo.append(other)
        return {self.kas(n) for n in seen}

    def follow(self, name: Name, to_kas: int) -> list[Name] | None:
        """Return the gateways that a question passes from here to a K-AS as they have chosen; None: a black hole."""
        way, trail = [name], [self.kas(name)]
        while self.kas(way[-1]) != to_kas:
            core = self.nodes[way[-1]].core
            asked_by = next(
                (k for k, s in core.sessions.items() if len(way) > 1 and s.to.gateway == way[-2]), "dcc"
            )  # fmt: skip
            key = core._next_hop(to_kas, trail, asked_by)
            if key is None or core.sessions[key].to.link in self.down or self.nodes[key[0]].frozen:
                return None
            way.append(key[0])
            trail.append(self.kas(key[0]))
            assert len(way) <= 40, f"a loop: {way}"
        return way
