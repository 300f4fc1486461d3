"""Two guards against too much of the same: a memory of what was said already, and a budget for costly checks.

Both are bounded, and both ask a clock that is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

WINDOW_MS = 30_000
AHEAD_MS = 10_000
KEPT_PER_SPEAKER = 4096


class Memory:
    """What each speaker said within the window; whatever is older counts as expired, so nothing is taken twice.

    A thing that is said again carries a later Sent At.  Per speaker at most ``kept`` things are remembered; when there
    are more, everything not later than the forgotten ones is refused: full means strict, never forgetful.  The memory
    begins when it is made: what was sent before that is refused.
    """

    def __init__(self, begun_ms: int, *, window_ms: int = WINDOW_MS, kept: int = KEPT_PER_SPEAKER) -> None:
        self._begun_ms, self._window_ms, self._kept = begun_ms - 1, window_ms, kept
        self._said: dict[int, OrderedDict[Hashable, int]] = {}
        self._floor_ms: dict[int, int] = {}

    def judge(self, speaker: int, what: Hashable, sent_ms: int, now_ms: int) -> str:
        """Return ``""`` for news, else ``expired`` or ``replayed``. Changes nothing: the packet may be forged."""
        if not now_ms - self._window_ms <= sent_ms <= now_ms + AHEAD_MS:
            return "expired"
        said = self._said.get(speaker)
        if said is not None and what in said:
            return "replayed" if sent_ms <= said[what] else ""
        return "replayed" if sent_ms <= self._floor_ms.get(speaker, self._begun_ms) else ""

    def note(self, speaker: int, what: Hashable, sent_ms: int, now_ms: int) -> None:
        """Remember something whose speaker was proven."""
        said = self._said.setdefault(speaker, OrderedDict())
        said[what] = sent_ms
        said.move_to_end(what)
        while said:
            oldest, sent = next(iter(said.items()))
            if len(said) <= self._kept and sent >= now_ms - self._window_ms:
                break
            del said[oldest]
            self._floor_ms[speaker] = max(self._floor_ms.get(speaker, self._begun_ms), sent)


class Budget:
    """How many costly checks per second the packets of one source address may cause, and all together."""

    def __init__(
        self, *, rate: float = 50.0, burst: float = 200.0, all_rate: float = 400.0, all_burst: float = 800.0,
        sources: int = 1024,
    ) -> None:  # fmt: skip
        self._rate, self._burst, self._sources = rate, burst, sources
        self._all_rate, self._all_burst = all_rate, all_burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (all_burst, float("-inf"))

    def spend(self, source: str, cost: float, now_s: float) -> bool:
        """Take ``cost`` checks from a source's budget and the common one; False when either has not that much."""
        own = _left(self._buckets.get(source, (self._burst, now_s)), self._rate, self._burst, now_s)
        common = _left(self._all, self._all_rate, self._all_burst, now_s)
        enough = own >= cost and common >= cost
        taken = cost if enough else 0.0
        self._buckets[source] = own - taken, now_s
        self._buckets.move_to_end(source)
        self._all = common - taken, now_s
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return enough


def _left(bucket: tuple[float, float], rate: float, burst: float, now_s: float) -> float:
    tokens, since_s = bucket
    return min(burst, tokens + (now_s - since_s) * rate) if now_s > since_s else tokens
