"""Reading event data that may be odd: every function returns a usable value or a plain "nothing", and none raises."""

from __future__ import annotations

import math
from typing import Any

MAX_SAFE_INTEGER = (1 << 53) - 1  # what a browser's number holds exactly; an object id (64 bit) does not fit
MAX_TEXT = 400
MAX_BOUND, MAX_COUNT = 1e9, 1_000_000
IDENTITIES = ("object_id", "for_object")

Data = dict[str, Any]


def text(data: Data, key: str, default: str = "", limit: int = MAX_TEXT) -> str:
    """Return a string (or a number as a string), cut to ``limit``; anything else is ``default``."""
    value = data.get(key)
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return default


def finite(value: object) -> float | None:
    """Return a finite number, else ``None`` (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(data: Data, key: str) -> float | None:
    """Return a finite number, else ``None``."""
    return finite(data.get(key))


def whole(data: Data, key: str, default: int = 0) -> int:
    """Return an integer (also from a string of digits), else ``default``."""
    value = data.get(key)
    if isinstance(value, str) and value.isdigit() and len(value) <= 20:
        return int(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else default


def identity(data: Data, key: str = "object_id") -> str:
    """Return an object's identity as decimal digits, or "" when there is none (0 is none)."""
    value = whole(data, key)
    return str(value) if value > 0 else ""


def names(data: Data, key: str, limit: int = 64) -> list[str]:
    """Return the strings of a list."""
    value = data.get(key)
    items = value if isinstance(value, list | tuple) else []
    return [item[:64] for item in items if isinstance(item, str)][:limit]


def texts(data: Data, key: str, limit: int = 16) -> list[str]:
    """Return the strings of a list, or one string as a list."""
    value = data.get(key)
    items = [value] if isinstance(value, str) and value else value if isinstance(value, list | tuple) else []
    return [item[:MAX_TEXT] for item in items if isinstance(item, str)][:limit]


def figures(data: Data, key: str, limit: int = 64) -> dict[str, float]:
    """Return the finite numbers of a mapping."""
    value = data.get(key)
    pairs = value.items() if isinstance(value, dict) else []
    kept = [(str(name)[:64], figure) for name, raw in pairs if (figure := finite(raw)) is not None]
    return dict(kept[:limit])


def buckets(data: Data, key: str, limit: int = 200) -> dict[float, int]:
    """Return counts by upper bound; what is no bound above 0, or no count, is left out."""
    found: dict[float, int] = {}
    for name, count in figures(data, key, limit).items():
        try:
            bound = float(name)
        except ValueError:
            continue
        if 0 < bound < MAX_BOUND and 0 < count <= MAX_COUNT:
            found[bound] = int(count)
    return found


def mapping(data: Data, key: str) -> Data:
    """Return a nested mapping, or an empty one."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def web_safe(value: Any, depth: int = 6) -> Any:
    """Return a copy that a browser reads without loss: identities and large integers as strings, no NaN."""
    if isinstance(value, dict):
        if depth == 0:
            return "{...}"
        return {str(k): _identity_text(v) if k in IDENTITIES else web_safe(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [web_safe(item, depth - 1) for item in value] if depth else "[...]"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        return str(value)
    return value


def _identity_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else web_safe(value, 1)
