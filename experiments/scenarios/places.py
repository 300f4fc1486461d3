"""Where in a scenario a wrong value stands: its keys by their names, and what would stand there rightly."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

STEP = re.compile(r"\[[^]]*\]|\.\w+")
EXAMPLES = {
    "$.kas[...].borrows": "borrows: {tfam: [4, 1]}",
    "$.kas[...].abstract_terminals": "abstract_terminals: {at31: [h31, h32]}",
    "$.kas[...].engines": "engines: {mtrce: mine.py:plan}",
    "$.kas": "kas: {1: {kind: distributed}}",
    "$.engines": "engines: {mtrce: mine.py:plan}",
}


def with_keys(text: str, raw: Any, says: Callable[[Any], str]) -> str:
    """Return msgspec's message with a key for every ``[...]``, and an example where one helps.

    ``says``: its message for another scenario, "" for none; the key is the one that fails alike without its neighbours.
    """
    found = re.search(r"`(\$[^`]*)`", text)
    if found is None:
        return text
    path = found.group(1)
    example = EXAMPLES.get(re.sub(r"(\[[^]]*\])+$", "", path), "")
    told = text.replace(path, _named(text, path, copy.deepcopy(raw), says))
    return f"{told}; for example `{example}`" if example and text.startswith("Expected") else told


def _named(text: str, path: str, whole: Any, says: Callable[[Any], str]) -> str:
    node, named = whole, "$"
    for step in STEP.findall(path):
        if step == "[...]":
            key = _failing(text, node, lambda: says(whole))
            if key is None:
                return path
            named += f".{key}"
        else:
            key = int(step[1:-1]) if step.startswith("[") else step[1:]
            named += step
        node = node[key]
    return named


def _failing(text: str, node: dict[Any, Any], says: Callable[[], str]) -> Any:
    """Leave in a mapping the one entry that fails by itself, and return its key; None when there is none."""
    for key, value in list(node.items()):
        node.clear()
        node[key] = value
        if says() == text:
            return key
    return None
