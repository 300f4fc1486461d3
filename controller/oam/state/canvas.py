"""The store under the state fold: sections of small JSON records, each with the version at which it last changed.

Versions are what makes the page cheap and honest: a reader remembers one number and asks for what changed since; a
slow reader gets fewer, larger answers, never an unbounded queue, and nothing is computed per reader when an event
comes in.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

Record = dict[str, Any]
Patch = dict[str, dict[str, Record | None]]

SECTIONS = (
    "run", "kas", "switches", "terminals", "links", "jobs", "objects", "queries", "classes", "load", "placed", "outs",
    "notices",
)  # fmt: skip
LIMITS = {
    "jobs": 64,
    "objects": 512,
    "queries": 200,
    "classes": 64,
    "placed": 256,
    "notices": 100,
    "terminals": 5000,
    "links": 20_000,
    "switches": 5000,
}


class Canvas:
    """Sections of records; ``touch`` to change one, ``patch_since`` to read what changed.  Not locked: its owner is."""

    def __init__(self) -> None:
        self.version = 0
        self.sections: dict[str, dict[str, Record]] = {name: {} for name in SECTIONS}
        self.neighbours: dict[str, list[str]] = {}
        self._changed: dict[tuple[str, str], int] = {}
        self._removed: deque[tuple[int, str, str]] = deque(maxlen=4096)

    def touch(self, section: str, key: str, **defaults: Any) -> Record:
        """Return the record for changing it, made from ``defaults`` when new (a full section loses its oldest)."""
        records = self.sections[section]
        if key not in records:
            if len(records) >= LIMITS.get(section, 64):
                self.remove(section, next(iter(records)))
            records[key] = dict(defaults)
        self.version += 1
        self._changed[section, key] = self.version
        return records[key]

    def get(self, section: str, key: str) -> Record | None:
        """Return a record for reading, or ``None``."""
        return self.sections[section].get(key)

    def remove(self, section: str, key: str) -> None:
        """Forget a record; readers are told by a ``None`` in their patch."""
        if self.sections[section].pop(key, None) is not None:
            self.version += 1
            self._changed.pop((section, key), None)
            self._removed.append((self.version, section, key))

    def snapshot(self) -> dict[str, Any]:
        """Return everything, as a copy."""
        copied: dict[str, Any] = copy_json({"version": self.version, **self.sections})
        return copied

    def patch_since(self, version: int) -> Patch:
        """Return the records changed after ``version`` (a removed one as ``None``), as a copy."""
        patch: Patch = {}
        for removed_at, section, key in self._removed:
            if removed_at > version and key not in self.sections[section]:
                patch.setdefault(section, {})[key] = None
        for (section, key), changed_at in self._changed.items():
            if changed_at > version:
                patch.setdefault(section, {})[key] = self.sections[section][key]
        copied: Patch = copy_json(patch)
        return copied


def copy_json(value: Any) -> Any:
    """Deep copy by way of JSON, so that what comes out is JSON-able for certain."""
    return msgspec.json.decode(msgspec.json.encode(value))
