"""Terminals that lie: no figure of any message is NaN, infinite, negative or absurd, and nothing is too long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest

from packets.messages import AnyMessage, decode_message

MESSAGES = {kind.__name__: kind for kind in get_args(AnyMessage)}
NO_NUMBER = (math.nan, math.inf, -math.inf)
ABSURD = (1e308, -1e308)
FREE = {  # integers of which every value has a meaning
    ("Submit", "seed"), ("ProbeReply", "last_visit"),
}  # fmt: skip
SIGNED = {"parameters", "metrics", "group_weights", "nearest", "predicted", "loss", "sample", "samples", "scores"}
Path = tuple[str | int, ...]


def sample(kind: msgspec.inspect.Type) -> Any:
    """Return a plain value that a type takes; of what may be empty, one entry."""
    match kind:
        case msgspec.inspect.StructType():
            tag = {kind.tag_field: kind.tag} if kind.tag_field else {}
            return tag | {field.encode_name: sample(field.type) for field in kind.fields}
        case msgspec.inspect.UnionType():
            return sample(next(t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType)))
        case msgspec.inspect.DictType():
            return {"task": sample(kind.value_type)}
        case msgspec.inspect.TupleType():
            return [sample(item) for item in kind.item_types]
        case msgspec.inspect.ListType():
            return [sample(kind.item_type)]
        case msgspec.inspect.IntType():
            return kind.ge or 0
        case msgspec.inspect.FloatType():
            return max(0.0, min(1.0, kind.le or 1.0))
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.BytesType():
            return b""
        case msgspec.inspect.LiteralType():
            return kind.values[0]
        case msgspec.inspect.StrType():
            return "a" * max(kind.min_length or 0, 1)
        case msgspec.inspect.AnyType():
            return 0
    raise AssertionError(f"no sample of {kind}")


def leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every plain value with its place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield at, value
        return
    for key, inner in items:
        yield from leaves(inner, (*at, key))


def with_(value: Any, at: Path, lie: Any) -> Any:
    """Return the value with another one at a place."""
    if not at:
        return lie
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = with_(value[at[0]], at[1:], lie)
    return copy


def taken(value: Any) -> bool:
    """Tell whether a message is taken for one of ours."""
    try:
        decode_message(msgspec.msgpack.encode(value))
    except msgspec.DecodeError:
        return False
    return True


def typed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = sample(msgspec.inspect.type_info(MESSAGES[name]))
    return _consistent(name, found)


def _consistent(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """What a message's own rules want beside the types of its fields."""
    if name == "AskPart":
        value |= {"total": 1, "size": 1, "number": 0, "samples": [[1]]}
    if name == "News":
        value["records"] = []
    if name == "StreamPart":
        value |= {"total": 1, "size": 1, "number": 0}
    return value


@pytest.mark.parametrize("name", MESSAGES)
def test_no_figure_of_any_message_is_a_lie(name: str) -> None:
    honest = typed(name)
    assert taken(honest), honest
    loose = []
    for at, value in leaves(honest):
        if isinstance(value, bool) or not isinstance(value, int | float) or at[0] in ("attributes", "log", "entries"):
            continue
        lies: list[Any] = [*NO_NUMBER, *ABSURD]
        if isinstance(value, float):
            lies += [] if SIGNED & set(map(str, at)) else [-0.5]
        elif (name, str(at[-1])) not in FREE and not SIGNED & set(map(str, at)):
            lies += [-1, 1.5]
        loose += [(at, lie) for lie in lies if taken(with_(honest, at, lie))]
    assert not loose, loose[:8]


@pytest.mark.parametrize("name", MESSAGES)
def test_no_text_and_no_list_of_any_message_is_too_long(name: str) -> None:
    honest = typed(name)
    loose = [
        at
        for at, value in leaves(honest)
        if isinstance(value, str) and at[0] not in ("m", "attributes", "log", "entries")
        and taken(with_(honest, at, "x" * 70_000))
    ]  # fmt: skip
    assert not loose, loose
