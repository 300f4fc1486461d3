"""How often a terminal reports: at once while its DCC answers at once, more seldom the longer answers take.

Push on change has no bound of its own: a thousand terminals that change ten times a second say more than one control
centre and its switches take, and everything else that is handed up would queue behind their reports.  A terminal
knows how long its reports wait, so it leaves a pause of several times that wait, in which changes gather and the
latest value of each attribute wins.  A queue delays every report, a processor that was busy elsewhere for a moment
delays one: the shortest of the last waits counts.  Freshness then falls to a bound that grows with the number of
terminals, and the queue stays short.  No clock of its own.
"""

from __future__ import annotations

from collections import deque

LOOKED_AT = 4  # waits of which the shortest counts
EASY_S = 0.05  # answers within this are no sign of a queue: no pause
PAUSES = 3.0  # seconds of pause for a second of waiting: in balance a quarter of the terminals wait for an answer
MAX_PAUSE_S = 1.0  # half a heartbeat: a paced terminal is not taken for a silent one
PATIENCE_S = 0.25, 2.0  # an answer is waited for four times as long as the last one took, within these


class Pace:
    """The pause of one terminal between two reports, and how long it waits for an answer before it asks again."""

    def __init__(self) -> None:
        self._next_s = float("-inf")
        self._took_s: deque[float] = deque(maxlen=LOOKED_AT)
        self.patience_s = PATIENCE_S[0]

    def answered(self, asked_s: float, now_s: float) -> None:
        """A report was answered; what it and those before it waited sets the pause from now on."""
        took_s = max(0.0, now_s - asked_s)
        self._took_s.append(took_s)
        queued_s = min(self._took_s) - EASY_S if len(self._took_s) == LOOKED_AT else 0.0
        self._next_s = now_s + min(MAX_PAUSE_S, PAUSES * max(0.0, queued_s))
        least, most = PATIENCE_S
        self.patience_s = min(most, max(least, 4.0 * took_s))

    def pause_s(self, now_s: float) -> float:
        """Return the seconds to wait before the next report (0: now)."""
        return max(0.0, self._next_s - now_s)
