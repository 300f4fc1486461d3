"""The edge cache: answers that a model gave, given again from memory for as long as that very model serves.

An answer is kept under exactly what was asked, with the label of the model that gave it. A label is a version: a model
that is deployed anew, or moved, has another one. What is kept ends by expiry, by number (the one asked for longest ago
goes first), and as soon as its label is none of those on offer.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from packets.messages import Answer, Ask, Message

Reply = Callable[[Message], None]


class Kept(NamedTuple):
    """An answer, the version that gave it, and until when it is good."""

    answer: Answer
    label: int
    until_s: float


def key_of(ask: Ask) -> bytes:
    """Return what makes two queries ask the same: sample, floors that there are, whether all chances are wanted."""
    floors = sorted((group, floor) for group, floor in ask.need.floors.items() if floor)
    return hashlib.sha256(msgspec.msgpack.encode((ask.sample, floors, ask.chances))).digest()


class Cache:
    """Answers by key, and who waits for one that is being asked for. Seconds are of the terminal's clock."""

    def __init__(self, expiry_s: float, entries: int) -> None:
        self.hits = self.misses = 0
        self._expiry_s, self._entries = expiry_s, entries
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._waiting: dict[tuple[bytes, int], list[Reply]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, offered: Collection[int], now_s: float) -> Answer | None:
        """Return what was answered, counting hit or miss; ``offered``: the labels that serve now."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and (now_s >= kept.until_s or kept.label not in offered):
                del self._kept[key]
                kept = None
            if kept is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return kept.answer

    def keep(self, key: bytes, answer: Answer, offered: Collection[int], now_s: float) -> None:
        """Keep an answer, unless nobody says which model's it is; one of a version that is news ends all before it."""
        if answer.state is None:
            return
        with self._lock:
            if answer.state.label not in offered:
                self._kept.clear()
            self._kept[key] = Kept(answer, answer.state.label, now_s + self._expiry_s)
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    # --- misses under way: who asks the same, with as much time, waits for the same answer

    def wait(self, key: bytes, deadline_ms: int, reply: Reply) -> bool:
        """Have a query wait; True: it is the first to, and its answer is to be asked for."""
        with self._lock:
            waiting = self._waiting.setdefault((key, deadline_ms), [])
            waiting.append(reply)
            return len(waiting) == 1

    def waited(self, key: bytes, deadline_ms: int) -> list[Reply]:
        """Return who waits for an answer that is there now."""
        with self._lock:
            return self._waiting.pop((key, deadline_ms), [])
