"""How long an endpoint lets packets gather before it looks at them: a turn costs much besides its packets."""

from __future__ import annotations

from collections.abc import Iterable

from packets.transfer.sender import Sending

LEAST_S, MOST_S = 0.0004, 0.004
GATHER = 56  # packets of a turn: what a turn costs besides its packets is then little
GROWTH = 1.05  # of a breath, a turn: a start, whose rate doubles, is not slowed


class Breath:
    """The pause of a turn; longer where few packets came in the last one, shorter where many did."""

    def __init__(self) -> None:
        self._pause_s = LEAST_S

    def idle(self) -> None:
        """Begin anew with the shortest pause: nothing is under way."""
        self._pause_s = LEAST_S

    def pause_s(self, sendings: Iterable[Sending], *, receiving: bool) -> float:
        """Return how long packets may gather: about ``GATHER`` of them, in or out, in 4 ms at most."""
        wanted = min((s.gather_s(GATHER) for s in sendings), default=MOST_S)
        return max(min(self._pause_s if receiving else MOST_S, wanted), LEAST_S)

    def note_arrivals(self, count: int) -> None:
        """Learn how many packets came in a turn."""
        if count < GATHER:
            self._pause_s = min(self._pause_s * GROWTH, MOST_S)
        elif count > 2 * GATHER:
            self._pause_s = max(self._pause_s / 2, LEAST_S)
