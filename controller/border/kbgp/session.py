"""One neighbour's session as a state machine in the manner of BGP (RFC 4271, section 8); no socket, no clock.

Both sides may connect.  Who connects speaks first; the other answers with its own OPEN.  Of two connections at a time
the one stays that the gateway with the higher name began (section 6.8), unless the neighbour has restarted meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from controller.border.kbgp.config import Config, Neighbour
from packets.kbgp.messages import MIN_HOLD_MS, VERSION, Code, KbgpError, Keepalive, Message, Open, Sub

KEEPALIVES = 3  # in one hold time
RETRIES = 5  # the pause between two attempts doubles so often


class State(Enum):
    """Where a neighbour, or one connection to it, stands."""

    IDLE = 0
    CONNECT = 1
    OPEN_SENT = 2
    OPEN_CONFIRM = 3
    ESTABLISHED = 4


@dataclass(eq=False)
class Connection:
    """One TLS connection. ``ours``: we began it; ``name``: who the certificate says is at the other end;
    ``told``: it has had all that there was to tell.
    """

    name: str
    ours: bool
    since_s: float
    neighbour: Session | None = None
    state: State = State.CONNECT
    hold_s: float = 0.0
    heard_s: float = 0.0
    sent_s: float = 0.0
    open: Open | None = None
    told: bool = False

    def overdue(self, now_s: float, open_s: float) -> KbgpError | None:
        """Return why it has to end, when the other side was silent for too long."""
        if self.state is State.ESTABLISHED or self.state is State.OPEN_CONFIRM:
            if now_s - self.heard_s >= self.hold_s:
                return KbgpError(Code.HOLD_TIMER, Sub.NONE, f"nothing heard for {self.hold_s:g} s")
        elif now_s - self.since_s >= open_s:
            return KbgpError(Code.HOLD_TIMER, Sub.NONE, f"no OPEN within {open_s:g} s")
        return None

    def keepalive_due(self, now_s: float) -> bool:
        """Tell whether we have been silent for a part of the hold time."""
        held = self.state in (State.OPEN_CONFIRM, State.ESTABLISHED)
        return held and now_s - self.sent_s >= self.hold_s / KEEPALIVES


@dataclass(eq=False)
class Session:
    """All that is remembered of one configured neighbour. ``kept_until_s``: its knowledge is stale until then."""

    LONGEST_RETRY: ClassVar[int] = 2**RETRIES

    to: Neighbour
    connections: list[Connection] = field(default_factory=list)
    up: Connection | None = None
    dialling: bool = False
    retry_at_s: float = 0.0
    tries: int = 0
    kept_until_s: float | None = None
    told_all: bool = False
    restarted: bool = False
    boot_ms: int = 0

    @property
    def state(self) -> State:
        """Where the session stands."""
        states = [c.state for c in self.connections] + [State.CONNECT if self.dialling else State.IDLE]
        return max(states, key=lambda state: state.value)

    def wait(self, now_s: float, retry_s: float, jitter: float) -> None:
        """Put the next attempt off, longer each time; ``jitter`` (0 to 1) keeps two neighbours out of step."""
        self.retry_at_s = now_s + retry_s * min(2**self.tries, self.LONGEST_RETRY) * (0.75 + jitter / 2)
        self.tries = min(self.tries + 1, RETRIES)


def check_open(config: Config, connection: Connection, said: Open) -> Neighbour:
    """Return which of our neighbours opens a session; ``KbgpError`` when it is none, or says what cannot be."""
    if VERSION not in said.versions:
        raise KbgpError(Code.OPEN, Sub.VERSION, f"{connection.name} speaks KBGP {said.versions}, we speak {VERSION}")
    if said.gateway != connection.name:
        raise KbgpError(Code.OPEN, Sub.PEER, f"{connection.name} calls itself {said.gateway}")
    found = next((n for n in config.neighbours if n.key == (said.gateway, said.link)), None)
    if found is None or (connection.neighbour is not None and connection.neighbour.to is not found):
        raise KbgpError(Code.OPEN, Sub.PEER, f"{said.gateway} is no neighbour over {said.link}")
    if found.kas != said.kas:
        raise KbgpError(Code.OPEN, Sub.PEER, f"{said.gateway} says it is of K-AS {said.kas}, not {found.kas}")
    if said.hold_ms < MIN_HOLD_MS:
        raise KbgpError(Code.OPEN, Sub.HOLD_TIME, f"hold time {said.hold_ms} ms, at least {MIN_HOLD_MS}")
    return found


def replaces(own: str, new: Connection, old: Connection) -> bool:
    """Tell whether a connection takes the place of an older one to the same neighbour; both know its OPEN."""
    assert new.open is not None and old.open is not None
    if new.open.boot_ms != old.open.boot_ms:
        return new.open.boot_ms > old.open.boot_ms
    if old.state is State.ESTABLISHED:
        return False

    def chosen(connection: Connection) -> bool:
        return connection.ours == (own > connection.name)

    return chosen(new) >= chosen(old)


def admissible(connection: Connection, message: Message) -> bool:
    """Tell whether a message may come in this state."""
    if isinstance(message, Open):
        return connection.state in (State.CONNECT, State.OPEN_SENT)
    if isinstance(message, Keepalive):
        return connection.state in (State.OPEN_CONFIRM, State.ESTABLISHED)
    return connection.state is State.ESTABLISHED
