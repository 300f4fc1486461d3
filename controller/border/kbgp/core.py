"""The border speaker as a pure core: sessions, routes, relayed questions; what it wants done it hands out as effects.

Whoever drives it (``runtime.py``; the simulation of the tests) calls it with what happened and the time, then does what
``take`` returns, in that order.  No input ends it: what breaks the protocol ends that connection with a NOTIFICATION.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from controller.border.kbgp.config import Config
from controller.border.kbgp.effects import Changed, Close, Dial, Effect, Say, Send, Tell
from controller.border.kbgp.relay import Question, Relay
from controller.border.kbgp.rib import Key, Peer, Rib, Verify, take_word
from controller.border.kbgp.session import Connection, Session, State, admissible, check_open, replaces
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import (
    VERSION,
    Announce,
    Code,
    EndOfRib,
    KbgpError,
    Keepalive,
    Message,
    Notification,
    Open,
    Reply,
    Request,
    Sub,
    Update,
)

LOCAL = "dcc"


class Core:
    """One speaker. ``boot_ms`` tells this life from earlier ones; ``restarting``: the one before ended unforeseen."""

    def __init__(
        self,
        config: Config,
        *,
        boot_ms: int,
        now_s: float,
        verify: Verify = take_word,
        restarting: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.config, self.boot_ms = config, boot_ms
        self.rib = Rib(config.kas, config.links, config.make_damping(), verify)
        self.relay = Relay(config.kas, LOCAL, self._next_hop, self._pass_on)
        self.sessions: dict[Key, Session] = {n.key: Session(n) for n in config.neighbours}
        self.counts: Counter[str] = Counter()
        self.local_up = False
        self.cut: frozenset[int] = frozenset()
        self._left_at_s: float | None = None
        self._rng = rng or random.Random()
        self.unnamed: set[Connection] = set()
        self._effects: list[Effect] = []
        self._now_s = now_s
        self._restarting = restarting
        self._deferred_until_s = now_s + config.timers.defer_s if restarting else now_s
        self._advertise_at_s = now_s
        self._stopped = False

    def take(self) -> list[Effect]:
        """Return what is to be done, in this order."""
        effects, self._effects = self._effects, []
        return effects

    # --- connections ---------------------------------------------------------------------------------------------

    def dialled(self, session: Session, now_s: float) -> Connection:
        """A connection that we asked for stands: we speak first."""
        session.dialling = False
        connection = Connection(session.to.gateway, True, now_s, session, State.OPEN_SENT)
        session.connections.append(connection)
        self._send(connection, self._open(session), now_s)
        return connection

    def dial_failed(self, session: Session, now_s: float) -> None:
        """A connection that we asked for does not come."""
        session.dialling = False
        session.wait(now_s, self.config.timers.retry_s, self._rng.random())

    def accepted(self, name: str, now_s: float) -> Connection:
        """Somebody with the certificate of this name has connected."""
        connection = Connection(name, False, now_s)
        self.unnamed.add(connection)
        return connection

    def closed(self, connection: Connection, now_s: float) -> None:
        """A connection ended without a word: its neighbour may be restarting."""
        self._drop(connection, now_s, keep=True, why="it was cut")

    def broken(self, connection: Connection, error: KbgpError, now_s: float) -> None:
        """A connection brought what breaks the protocol: say so, and end it."""
        self.counts[f"error {error.code.name.lower()}"] += 1
        if self._alive(connection):
            self._say("error", text=f"border session with {connection.name}: {error}")
            self._end(connection, error, now_s)

    def received(self, connection: Connection, message: Message, now_s: float) -> None:
        """Take a message."""
        if not self._alive(connection):
            return
        connection.heard_s = now_s
        self.counts[type(message).__name__] += 1
        if isinstance(message, Notification):
            self._drop(connection, now_s, keep=False, why=message.reason or f"NOTIFICATION {message.code}")
        elif not admissible(connection, message):
            name = f"{type(message).__name__} in state {connection.state.name}"
            self.broken(connection, KbgpError(Code.STATE, Sub.NONE, name), now_s)
        elif isinstance(message, Open):
            self._opened(connection, message, now_s)
        elif connection.state is State.OPEN_CONFIRM:
            self._established(connection, now_s)
        else:
            self._told(connection, message, now_s)

    def _opened(self, connection: Connection, said: Open, now_s: float) -> None:
        try:
            session = self.sessions[check_open(self.config, connection, said).key]
        except KbgpError as error:
            self.broken(connection, error, now_s)
            return
        connection.open, connection.hold_s = said, min(said.hold_ms, self.config.timers.hold_ms) / 1000
        self.unnamed.discard(connection)
        for other in [c for c in session.connections if c is not connection and c.open is not None]:
            loser = other if replaces(self.config.gateway, connection, other) else connection
            if loser is connection:
                self._end(connection, KbgpError(Code.CEASE, Sub.COLLISION, "another connection stays"), now_s)
                return
            self._end(other, KbgpError(Code.CEASE, Sub.COLLISION, "another connection stays"), now_s, keep=True)
        if not connection.ours:
            connection.neighbour = session
            session.connections.append(connection)
            self._send(connection, self._open(session), now_s)
        connection.state = State.OPEN_CONFIRM
        self._send(connection, Keepalive(), now_s)

    def _established(self, connection: Connection, now_s: float) -> None:
        session, said = connection.neighbour, connection.open
        assert session is not None and said is not None
        connection.state, session.up, session.tries = State.ESTABLISHED, connection, 0
        session.told_all, session.restarted = False, said.restarting
        if session.boot_ms != said.boot_ms and not said.restarting:
            self.rib.end_of_rib(session.to.key)  # a new life that kept nothing: what the old one said is void
        session.boot_ms = said.boot_ms
        if session.kept_until_s is not None:
            session.kept_until_s = now_s + self.config.timers.defer_s
        to = session.to
        self.rib.up(Peer(to.key, to.kas, to.cost, to.kas == self.config.kas))
        self._say("border.up", kas=to.kas, gateway=to.gateway, link=to.link)
        if not self._deferring(now_s):
            self._advertise_to(session, now_s)

    def _told(self, connection: Connection, message: Message, now_s: float) -> None:
        session = connection.neighbour
        assert session is not None
        if isinstance(message, Update):
            for reason in self.rib.learn(session.to.key, message, now_s):
                self._say("border.refused", gateway=session.to.gateway, text=reason)
            self._choose(now_s)
        elif isinstance(message, EndOfRib):
            session.told_all, session.kept_until_s = True, None
            self.rib.end_of_rib(session.to.key)
            self._choose(now_s)
        elif isinstance(message, Request | Announce):
            self._now_s = now_s
            self.relay.ask(session.to.key, session.to.kas, message, now_s)
        elif isinstance(message, Reply):
            self.relay.reply(session.to.key, message)

    def _end(self, connection: Connection, error: KbgpError, now_s: float, *, keep: bool = False) -> None:
        self._send(connection, Notification(code=error.code, sub=error.sub, reason=str(error)[:200]), now_s)
        self._drop(connection, now_s, keep=keep, why=str(error))

    def _drop(self, connection: Connection, now_s: float, *, keep: bool, why: str) -> None:
        """Forget a connection; what an established one brought is stale (``keep``, where agreed) or gone."""
        if not self._alive(connection):
            return
        self._effects.append(Close(connection))
        self.unnamed.discard(connection)
        session = connection.neighbour
        if session is None:
            return
        session.connections.remove(connection)
        session.wait(now_s, self.config.timers.retry_s, self._rng.random())
        if session.up is not connection:
            return
        session.up = None
        assert connection.open is not None
        kept_s = min(connection.open.restart_s, self.config.timers.restart_s) if keep else 0
        session.kept_until_s = now_s + kept_s if kept_s else None
        self.rib.down(session.to.key, now_s, keep=bool(kept_s))
        self._say("border.down", kas=session.to.kas, gateway=session.to.gateway, link=session.to.link, why=why[:200])
        self.relay.gone(session.to.key)
        self._choose(now_s)

    def _alive(self, connection: Connection) -> bool:
        session = connection.neighbour
        return connection in self.unnamed if session is None else connection in session.connections

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass: dial, keep alive, end what is silent, forget what is stale, pass on what is new."""
        self._now_s = now_s
        timers = self.config.timers
        for connection in [*self.unnamed, *(c for s in self.sessions.values() for c in s.connections)]:
            overdue = connection.overdue(now_s, timers.open_s)
            if overdue is not None:
                self.broken(connection, overdue, now_s)
            elif connection.keepalive_due(now_s):
                self._send(connection, Keepalive(), now_s)
        for session in self.sessions.values():
            if session.kept_until_s is not None and now_s >= session.kept_until_s:
                session.kept_until_s = None
                self._forget(session, now_s)
            joined = not self._stopped and session.to.kas not in self.cut
            may_dial = session.to.port and joined and session.state is State.IDLE
            if may_dial and now_s >= session.retry_at_s:
                session.dialling = True
                self._effects.append(Dial(session))
        self.relay.tick(now_s)
        if self._left_at_s is not None and now_s >= self._left_at_s + timers.restart_s:
            self._left_at_s = None
            self.rib.originate(None, b"")
        self._choose(now_s)
        if now_s >= self._advertise_at_s and not self._deferring(now_s):
            self._advertise_at_s = now_s + timers.advertise_s
            for session in self.sessions.values():
                self._advertise_to(session, now_s)

    def _forget(self, session: Session, now_s: float) -> None:
        if session.up is None:
            self.rib.down(session.to.key, now_s, keep=False)
        else:
            self.rib.end_of_rib(session.to.key)

    def _deferring(self, now_s: float) -> bool:
        """Tell whether, restarting, we still gather what our neighbours know before we say anything (RFC 4724, 4.1)."""
        if not self._restarting:
            return False
        waited_for = [s for s in self.sessions.values() if not s.restarted]
        gathered = self.local_up and all(s.up is not None and s.told_all for s in waited_for)
        if gathered or now_s >= self._deferred_until_s:
            self._restarting = False
        return self._restarting

    def stop(self, now_s: float) -> None:
        """End all sessions with a word, for good."""
        self._stopped = True
        error = KbgpError(Code.CEASE, Sub.SHUTDOWN, "shut down")
        for connection in [*self.unnamed, *(c for s in self.sessions.values() for c in s.connections)]:
            self._end(connection, error, now_s)

    # --- routes --------------------------------------------------------------------------------------------------

    def originate(self, knowledge: Knowledge | None, signature: bytes, now_s: float) -> None:
        """Our own control centre says what our K-AS tells of itself (None: nothing any more)."""
        self.rib.originate(knowledge, signature)
        self.local_up, self._left_at_s = knowledge is not None, None
        self._choose(now_s)

    def left(self, now_s: float) -> None:
        """Our own control centre is gone; it may be restarting, so for ``restart_s`` its word still stands."""
        if self.local_up:
            self.local_up, self._left_at_s = False, now_s
        self.relay.gone(LOCAL)

    def cut_off(self, kas: Iterable[int], now_s: float) -> None:
        """No link to these neighbours is up (the others' is): their sessions end now, not after the hold time."""
        before, self.cut = self.cut, frozenset(kas) - {self.config.kas}
        for session in self.sessions.values():
            if session.to.kas in self.cut - before:
                for connection in list(session.connections):
                    self._drop(connection, now_s, keep=False, why="its link is down")
            elif session.to.kas in before - self.cut:
                session.retry_at_s, session.tries = now_s, 0

    def _choose(self, now_s: float) -> None:
        changed = self.rib.select(now_s)
        if changed:
            self._effects.append(Changed(changed))

    def _advertise_to(self, session: Session, now_s: float) -> None:
        connection = session.up
        if connection is None:
            return
        for update in self.rib.updates(session.to.key):
            self._send(connection, update, now_s)
        if not connection.told:
            connection.told = True
            self._send(connection, EndOfRib(), now_s)

    # --- questions -----------------------------------------------------------------------------------------------

    def ask(self, question: Question, now_s: float) -> None:
        """Our own control centre asks another."""
        self._now_s = now_s
        self.relay.ask(LOCAL, self.config.kas, question, now_s)

    def answer(self, reply: Reply) -> None:
        """Our own control centre answers another."""
        self.relay.reply(LOCAL, reply)

    def _next_hop(self, kas: int, trail: list[int], asked_by: object) -> Key | None:
        from_inside = asked_by in self.sessions and self.sessions[asked_by].to.kas == self.config.kas
        avoid = [k for k in trail if k != self.config.kas]
        for route in self.rib.ways(kas, self._now_s, avoid):
            assert route.peer is not None
            if not (from_inside and route.peer.internal) and self.sessions[route.peer.key].up is not None:
                return route.peer.key
        return None

    def _pass_on(self, party: object, message: Question | Reply) -> bool:
        if party == LOCAL:
            if self.local_up or isinstance(message, Reply):
                self._effects.append(Tell(message))
            return self.local_up
        session = self.sessions[party]  # type: ignore[index]
        if session.up is None:
            return False
        self._send(session.up, message, self._now_s)
        return True

    # --- words ---------------------------------------------------------------------------------------------------

    def _open(self, session: Session) -> Open:
        timers = self.config.timers
        return Open(
            versions=[VERSION], kas=self.config.kas, gateway=self.config.gateway, link=session.to.link,
            hold_ms=timers.hold_ms, boot_ms=self.boot_ms, restart_s=timers.restart_s, restarting=self._restarting,
            capabilities=["graceful-restart", "relay"],
        )  # fmt: skip

    def _send(self, connection: Connection, message: Message, now_s: float) -> None:
        connection.sent_s = now_s
        self._effects.append(Send(connection, message))

    def _say(self, kind: str, **data: Any) -> None:
        self._effects.append(Say(kind, data))
