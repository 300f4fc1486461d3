"""What stays bounded whatever comes in: a mapping that forgets its oldest entries, events that are told in part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from packets.events import Emit

Key = TypeVar("Key")
Value = TypeVar("Value")
KEPT = 8192


class Bounded(dict[Key, Value]):
    """At most ``KEPT`` entries, by age of their first writing."""

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        while len(self) > KEPT:
            del self[next(iter(self))]


class Rationed:
    """Events of refusals, ``rate`` a second at most; those that were too many are told by ``tell``, in one a reason."""

    def __init__(self, emit: Emit, clock: Callable[[], float], rate: float = 20.0) -> None:
        self._emit, self._clock, self._rate = emit, clock, rate
        self._left, self._at = rate, clock()
        self._untold: Counter[tuple[str, str]] = Counter()

    def __call__(self, kind: str, /, reason: str, **data: Any) -> None:
        """Tell of one refusal, or note it."""
        now = self._clock()
        self._left, self._at = min(self._rate, self._left + (now - self._at) * self._rate), now
        if self._left >= 1.0:
            self._left -= 1.0
            self._emit(kind, reason=reason, **data)
        elif len(self._untold) < KEPT:
            self._untold[kind, reason] += 1

    def tell(self) -> None:
        """Tell of those that were too many to tell one by one (periodic)."""
        untold, self._untold = self._untold, Counter()
        for (kind, reason), more in untold.items():
            self._emit(kind, reason=reason, more=more)
