"""Gossip on the network: what the rules (``core``) say goes in packets from terminal to terminal, what comes in goes to
the map of the house.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from hosts.gossip.core import Gossip, Held, Limits
from hosts.gossip.house import MET, House
from hosts.terminal.reporter import differs
from hosts.terminal.terminal import Terminal
from packets.distributed.gossip import MAX_ATTRIBUTES_BYTES, News, Record, Talk, signature_of, signed_by
from packets.errors import TransportError
from packets.messages import decode_message, encode_message
from packets.security.clock import unix_s
from packets.wire import PacketType

TICK_S = 0.1
ANSWER_S = 1.0
AT_ONCE = 4  # exchanges; more are let go, anti-entropy makes up for them
TOLD_DCC = ("reachable",)  # of a terminal with data or compute: what its control centre looks after it by
SILENT_ROLES = ("host", "kbg")


class Gossiping:
    """The gossip of one terminal of a distributed K-AS; ``wall``: seconds since 1970."""

    def __init__(
        self, terminal: Terminal, house: House, limits: Limits | None = None, wall: Callable[[], float] = unix_s
    ) -> None:
        self.terminal, self.house = terminal, house
        peers = [name for name, host in house.hosts.items() if host.role not in SILENT_ROLES]
        self.names = {house.hosts[name].address: name for name in peers}
        self.core = Gossip(
            terminal.name, peers, self._sign, self._verify, now_s=terminal.clock(), born_unix_s=wall(),
            seed=str(terminal.seed), limits=limits,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gossip")
        self._half_way_s: dict[str, float] = {}
        self._said: dict[str, Any] = {}
        self._fresh: deque[Held] = deque()

    # --- what this terminal says of itself

    def told(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Publish what changed of a data node or facility; return what its control centre is told."""
        if self.terminal.plan.role not in MET:
            return attributes
        now_s, said = self.terminal.clock(), self._said
        changed = [a for a, v in attributes.items() if a not in said or differs(said[a], v)]
        if changed or self.core.due(now_s):
            self._said = dict(attributes)
            self._publish(msgspec.msgpack.encode(attributes), now_s)
        return {a: v for a, v in attributes.items() if a in TOLD_DCC}

    def _publish(self, body: bytes, now_s: float) -> None:
        if len(body) > MAX_ATTRIBUTES_BYTES:
            what = f"what {self.terminal.name} says of itself has {len(body)} bytes"
            self.terminal.complain(f"{what}, more than {MAX_ATTRIBUTES_BYTES}: nobody is told")
            return
        with self._lock:
            self.core.publish(body, now_s)
        self.house.hear(self.terminal.name, body, now_s)
        self._woken.set()

    def _sign(self, version: int, attributes: bytes) -> bytes:
        guard = self.terminal.guard
        return signature_of(guard.identity, version, attributes) if guard else b""

    def _verify(self, record: Record) -> bool:
        if self.terminal.guard is None:
            return True
        certificate = self.terminal.guard.directory.by_name(record.name)
        return certificate is not None and signed_by(record, certificate)

    # --- what comes in

    def heard(self, talk: Talk, address: str) -> News:
        """Take what another terminal said, or asked; return the answer."""
        name = self.names.get(address, "")
        return self._take(name, talk, self._half_way_s.get(name, 0.0))

    def _take(self, name: str, talk: Talk, transit_s: float) -> News:
        with self._lock:
            heard = self.core.hear(name, talk, self.terminal.clock(), transit_s)
        if heard.fresh:  # the house may be busy, and the transport's thread waits for nobody
            self._fresh.extend(heard.fresh)
            self._woken.set()
        return heard.answer

    # --- what goes out

    def start(self) -> None:
        """Begin to gossip, until the terminal stops."""
        threading.Thread(target=self._run, name="gossip", daemon=True).start()

    def _run(self) -> None:
        while not self.terminal.stopping.is_set():
            self._woken.wait(TICK_S)
            self._woken.clear()
            self.turn()
            self.terminal.stopping.wait(TICK_S / 2)  # what comes in a burst goes on together

    def turn(self) -> None:
        """Enter what was heard, say what is to be said now, and forget whom nobody has heard of for long."""
        while self._fresh:
            news = self._fresh.popleft()
            self.house.hear(news.record.name, news.record.attributes, news.t_s)
        now_s = self.terminal.clock()
        with self._lock:
            going, held = self.core.tick(now_s), self.core.held(now_s)
        self.house.keep(held)
        for name, talk in going:
            if self._room.acquire(blocking=False):
                self._pool.submit(self._exchange, name, talk).add_done_callback(lambda _: self._room.release())

    def _exchange(self, name: str, talk: Talk) -> None:
        """Tell one terminal something, take its answer, and give it what it wants."""
        answer = self._tell(name, talk)
        if answer is None:
            return
        wanted = self._take(name, answer, self._half_way_s.get(name, 0.0))
        if wanted.records:
            self._tell(name, wanted)

    def _tell(self, name: str, talk: Talk) -> News | None:
        began_s = self.terminal.clock()
        try:
            _, payload = self.terminal.network.request(
                encode_message(talk), to=self.house.hosts[name].address, type=PacketType.PROBE, timeout_s=ANSWER_S
            )
            answer = decode_message(payload)
        except (TransportError, msgspec.DecodeError):
            with self._lock:
                self.core.missed(name, self.terminal.clock())
            return None
        self._half_way_s[name] = (self.terminal.clock() - began_s) / 2
        return answer if isinstance(answer, News) else None

    def state(self) -> dict[str, Any]:
        """Return how it stands, for the control socket."""
        with self._lock:
            now_s = self.terminal.clock()
            ages_s = {name: round(now_s - held.t_s, 3) for name, held in self.core.held(now_s).items()}
            return {"ages_s": ages_s, "refused": dict(self.core.refused), "sent": dict(self.core.sent)}
