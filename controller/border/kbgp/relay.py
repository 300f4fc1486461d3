"""Questions of control centres on their way over several gateways, and answers on their way back; no socket, no clock.

Each hop gives a question a number of its own and remembers whose it was, so an answer is taken only from the session
that was asked.  Questions are bounded in number, hops and time; whatever ends one early is told to who asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from packets.kbgp.messages import MAX_HOPS, Announce, Answer, Reply, Request

MOST_PENDING = 1024
FURTHER_ON = 0.95
MOST_OF_ONE = 512  # of one session: a neighbour that floods does not take all
Question = Request | Announce
NextHop = Callable[[int, list[int], object], object | None]
Send = Callable[[object, Question | Reply], bool]


@dataclass(frozen=True)
class _Pending:
    asked_by: object
    id: int
    asked: object
    due_s: float


class Relay:
    """Passes questions on. A *party* is a session, or our own control centre (``local``).

    ``next_hop(kas, trail, asked_by)`` names the party to ask (None: no way); ``send`` tells whether it could be sent.
    """

    def __init__(self, kas: int, local: object, next_hop: NextHop, send: Send) -> None:
        self.kas, self.local, self._next_hop, self._send = kas, local, next_hop, send
        self.ended: Counter[str] = Counter()
        self._pending: dict[int, _Pending] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._pending)

    def ask(self, asked_by: object, from_kas: int, question: Question, now_s: float) -> None:
        """Take a question of a session, or of our control centre, and pass it on, or say why not.

        ``from_kas``: of that session; our own K-AS for our control centre, and for another gateway of ours.
        """
        refusal = self._refusal(asked_by, from_kas, question)
        if refusal is not None:
            self._answer(asked_by, question.id, *refusal)
            return
        trail = question.trail if from_kas == self.kas else [*question.trail, self.kas]
        at_home = question.to_kas == self.kas
        party = self.local if at_home else self._next_hop(question.to_kas, question.trail, asked_by)
        if party is None or party == asked_by:
            self._answer(asked_by, question.id, Answer.UNREACHABLE, f"K-AS {self.kas} has no way to {question.to_kas}")
            return
        self._count += 1
        due_s = now_s + question.left_ms / 1000
        self._pending[self._count] = _Pending(asked_by, question.id, party, due_s)
        left_ms = question.left_ms * FURTHER_ON  # who is further away gives up first, so its word comes in time
        passed_on = msgspec.structs.replace(question, id=self._count, trail=trail, left_ms=int(left_ms))
        if not self._send(party, passed_on):
            code = Answer.ABSENT if at_home else Answer.OVERLOADED
            why = f"the DCC of K-AS {self.kas} is away" if at_home else f"K-AS {self.kas} cannot pass it on now"
            self._end(self._count, code, why)

    def _refusal(self, asked_by: object, from_kas: int, question: Question) -> tuple[Answer, str] | None:
        if len(question.trail) >= MAX_HOPS:
            return Answer.HOP_LIMIT, f"{len(question.trail)} K-AS passed, no more are"
        if question.trail[-1] != from_kas:
            return Answer.REFUSED, f"K-AS {from_kas} passed on what it says K-AS {question.trail[-1]} did"
        if self.kas in question.trail[:-1]:
            return Answer.UNREACHABLE, f"it came back to K-AS {self.kas}"
        if not question.left_ms:
            return Answer.TIMEOUT, f"its time was over in K-AS {self.kas}"
        of_one = sum(p.asked_by == asked_by for p in self._pending.values()) if self._pending else 0
        if len(self._pending) >= MOST_PENDING or of_one >= MOST_OF_ONE:
            return Answer.OVERLOADED, f"K-AS {self.kas} passes on {len(self._pending)} questions already"
        return None

    def reply(self, party: object, reply: Reply) -> None:
        """Take an answer; one that nobody waits for from that party is dropped and counted."""
        pending = self._pending.get(reply.id)
        if pending is None or pending.asked != party:
            self.ended["unasked"] += 1
            return
        del self._pending[reply.id]
        self.ended["answered" if reply.code == Answer.ANSWERED else "passed"] += 1
        self._send(pending.asked_by, msgspec.structs.replace(reply, id=pending.id))

    def gone(self, party: object) -> None:
        """A session ended, or our control centre left: what it was asked is unanswered, what it asked is forgotten."""
        for number, pending in list(self._pending.items()):
            if pending.asked_by == party:
                del self._pending[number]
            elif pending.asked == party:
                self._end(number, Answer.CUT, f"the session beyond K-AS {self.kas} ended")

    def tick(self, now_s: float) -> None:
        """End what was not answered in time."""
        for number in [n for n, p in self._pending.items() if p.due_s <= now_s]:
            self._end(number, Answer.TIMEOUT, f"no answer to K-AS {self.kas} in time")

    def _end(self, number: int, code: Answer, why: str) -> None:
        pending = self._pending.pop(number)
        self._answer(pending.asked_by, pending.id, code, why)

    def _answer(self, party: object, number: int, code: Answer, why: str) -> None:
        self.ended[code.name.lower()] += 1
        self._send(party, Reply(id=number, code=code, reason=why[:200]))
