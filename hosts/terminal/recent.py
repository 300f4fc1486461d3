"""What is remembered for a while: of many things, the latest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

Value = TypeVar("Value")
_MEMORY = 256


class Recent(OrderedDict[Hashable, Value]):
    """A mapping that forgets its oldest entries once there are more than ``kept``."""

    def __init__(self, kept: int = _MEMORY) -> None:
        super().__init__()
        self.kept = kept

    def note(self, key: Hashable, value: Value) -> None:
        """Remember a value as the newest."""
        self[key] = value
        while len(self) > self.kept:
            self.popitem(last=False)
