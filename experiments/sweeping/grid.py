"""The grid of a sweep: keys of a scenario with their values, and seeds; every point of it a scenario, and checked."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import yaml

from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, from_raw, known_keys

MOST_CELLS = 10_000
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")  # 1e-3, which YAML takes for text
OURS = {"seed": "say --seeds", "seeds": "say --seeds", "name": "it is no setting"}


class Axis(NamedTuple):
    """One key and the values that it is to have."""

    key: str
    values: tuple[Any, ...]


def parse_axes(words: Sequence[str]) -> list[Axis]:
    """Read ``key=v1,v2`` words; values are YAML, as in a scenario. ``ExperimentError`` names the word and the fix."""
    axes: list[Axis] = []
    for word in words:
        key, equals, text = word.partition("=")
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            raise ExperimentError(f"--set {word}: the values are no YAML; write them as in a scenario file") from None
        if not equals or not key or not values or None in values:
            raise ExperimentError(f"--set {word}: give key=value,value, as in jobs.max_visits=4,8")
        if key in OURS:
            raise ExperimentError(f"--set {word}: {key} cannot be set here: {OURS[key]}")
        if key in (axis.key for axis in axes):
            raise ExperimentError(f"--set {word}: {key} is there already; give all its values at once")
        values = [float(v) if isinstance(v, str) and NUMBER.fullmatch(v) else v for v in values]
        if any(a == b and type(a) is type(b) for a, b in itertools.combinations(values, 2)):
            raise ExperimentError(f"--set {word}: a value is there twice; give each once")
        axes.append(Axis(key, tuple(values)))
    return axes


def parse_seeds(word: str) -> list[int]:
    """Read ``1-5``, ``1,4,7`` or both; ``ExperimentError`` for what is none."""
    seeds: list[int] = []
    for part in word.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last - first >= MOST_CELLS:
            raise ExperimentError(f"--seeds {word}: give seeds as 1-5 or 1,4,7")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ExperimentError(f"--seeds {word}: a seed is there twice; give each once")
    return seeds


def points(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield every combination of values, as {key: value}; the last key changes fastest."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield {axis.key: value for axis, value in zip(axes, values, strict=True)}


def in_words(point: Mapping[str, Any]) -> str:
    """Return a point as it was said."""
    return " ".join(f"{key}={value_in_words(value)}" for key, value in point.items())


def value_in_words(value: Any) -> str:
    """Return a value of a key as in a scenario file."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def laid_over(scenario: Scenario, point: Mapping[str, Any]) -> Scenario:
    """Return a scenario with keys set anew, checked like one that was read from a file.

    A key of a list's items is set in each of them (``jobs.max_visits``), or in the one whose number stands in it
    (``jobs.0.max_visits``).
    """
    raw = msgspec.to_builtins(scenario)
    for key, value in point.items():
        where = f"{scenario.name}, --set {key}={value_in_words(value)}"
        _check_head(key, where)
        _put(raw, key.split("."), value, where)
    return from_raw(raw, f"{scenario.name}, --set {in_words(point)}") if point else scenario


def _check_head(key: str, where: str) -> None:
    if key.partition(".")[0] in Scenario.__struct_fields__:
        return
    known = known_keys()
    deeper = [k for k in known if k.endswith(f".{key}")]
    near = deeper or difflib.get_close_matches(key, known, 1) or _near_last(key, known)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are: {', '.join(Scenario.__struct_fields__)}"
    raise ExperimentError(f"scenario {where}: unknown key {key!r}; {hint}")


def _near_last(key: str, known: Sequence[str]) -> list[str]:
    last = {k.rpartition(".")[2]: k for k in known}
    return [last[k] for k in difflib.get_close_matches(key, last, 1)]


def _put(node: Any, keys: Sequence[str], value: Any, where: str) -> None:
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        chosen = node
        if key.isdigit():
            chosen, keys = node[int(key) : int(key) + 1], rest
        if not chosen or not keys:
            raise ExperimentError(f"scenario {where}: there is no such item; the list has {len(node)}")
        for item in chosen:
            _put(item, keys, value, where)
    elif not isinstance(node, dict):
        raise ExperimentError(f"scenario {where}: what stands before {key!r} has no keys")
    else:
        name: Any = int(key) if key.isdigit() and int(key) in node else key
        if not rest:
            node[name] = value
            return
        if node.get(name) is None:
            node[name] = {}
        _put(node[name], rest, value, where)
