"""What is remembered for a while: of many things, the latest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

Value = TypeVar("Value")
_MEMORY = 256


class Recent(OrderedDict[Hashable, Value]):
    """A mapping that forgets its oldest entries once there are more than ``kept``.

    ``most_bytes``, of values that are bytes: or once they are more than that together; the newest stays.
    """

    def __init__(self, kept: int = _MEMORY, most_bytes: int = 0) -> None:
        super().__init__()
        self.kept, self.most_bytes = kept, most_bytes

    def note(self, key: Hashable, value: Value) -> None:
        """Remember a value as the newest."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self.kept or (self.most_bytes and len(self) > 1 and self._bytes() > self.most_bytes):
            self.popitem(last=False)

    def _bytes(self) -> int:
        return sum(len(value) for value in self.values() if isinstance(value, bytes))
