"""A mapping that forgets its oldest entries: what a control centre remembers of objects stays bounded."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
KEPT = 8192


class Bounded(dict[Key, Value]):
    """At most ``KEPT`` entries, by age of their first writing."""

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        while len(self) > KEPT:
            del self[next(iter(self))]
