"""G-KRRM, the global knowledge, resource and reachability map: what a DCC believes of its terminals, and since when.

The raw canvas of the paper (section II, "DRRT layer"). It is fed by ``Register`` and ``Report`` messages, keeps every
attribute with the time at which it was last reported, and gives each *change of value* a number, so that the
topologies cut from it (``drrt``, ``qrrt``) know what to cut anew. It has no clock: the caller passes ``now_s``.

A report is taken whole or not at all: NaN, negative amounts, shares that do not sum to 1 and the like raise
``BadReport`` and the old values stay. Attribute names other than those of ``messages.Register`` are kept when they
are plain scalars, so that a researcher's own agent can report what her own engine wants to know.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from controller.topology.errors import BadReport, UnknownNode
from controller.values.knowledge import Attribute, Node
from packets.labels import LABEL_MASK
from packets.terms import MAX_FIGURE, MAX_METRICS

MAX_ATTRIBUTES = 64
MAX_GROUPS = 64
MAX_NAME = 40
MAX_METRIC_NAME = 32
SHARE_TOLERANCE = 0.02  # rounding on the wire and after noise; more is not a distribution
MAX_NUMBER = 1e15


class Krrm:
    """The map. Not thread-safe: one DCC thread owns it. ``version`` counts changes of value, joins and leaves."""

    def __init__(self) -> None:
        self.version = 0
        self._nodes: dict[str, Node] = {}

    def update(
        self,
        name: str,
        role: str,
        kas: int,
        address: str,
        attributes: Mapping[str, Any],
        now_s: float,
        size_bytes: int = 0,
    ) -> list[str]:
        """Take a registration, a report or (no attributes) a heartbeat; return the attributes whose value changed.

        ``size_bytes``: the frame that brought it, shared out over its attributes. ``BadReport`` when anything in it
        cannot be true; then nothing is taken.
        """
        known = self._nodes.get(name)
        self._check_identity(name, role, kas, address, known)
        checked = {key: _checked(name, key, value) for key, value in attributes.items()}
        old = known.attributes if known else {}
        if len(old.keys() | checked.keys()) > MAX_ATTRIBUTES:
            raise BadReport(f"report of {name}: more than the {MAX_ATTRIBUTES} attributes that a terminal may have")
        changed = sorted(key for key, value in checked.items() if key not in old or old[key].value != value)
        if changed or known is None or known.address != address:
            self.version += 1
        version = self.version if changed or known is None else known.version
        share = size_bytes / len(checked) if checked else 0.0
        held = {**old}
        for key, value in checked.items():
            before = old.get(key)
            if before is None:
                held[key] = Attribute(value, now_s, self.version, share)
            else:
                new = key in changed
                since, changes = (self.version, before.changes + 1) if new else (before.version, before.changes)
                held[key] = Attribute(value, now_s, since, before.cost_bytes + share, changes)
        self._nodes[name] = Node(
            name=name, role=role, kas=kas, address=address, attributes=held, heard_s=now_s, version=version
        )
        return changed

    def note(self, name: str, attributes: Mapping[str, Any], now_s: float) -> list[str]:
        """Take what the DCC itself knows of a terminal (trust, reachability): no sign of life of the terminal's own.

        Returns the attributes whose value changed; ``UnknownNode``.
        """
        known = self.node(name)
        changed = self.update(name, known.role, known.kas, known.address, attributes, now_s)
        self._nodes[name] = msgspec.structs.replace(self._nodes[name], heard_s=known.heard_s)
        return changed

    def forget(self, name: str) -> None:
        """Take a terminal off the map (it left, or is taken for dead); unknown names are no error."""
        if self._nodes.pop(name, None) is not None:
            self.version += 1

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, name: str) -> Node:
        """Return a terminal; ``UnknownNode`` when the map does not hold it."""
        try:
            return self._nodes[name]
        except KeyError:
            raise UnknownNode(f"terminal {name} is not on the map; it has not registered, or has left") from None

    def nodes(self, role: str | None = None) -> list[Node]:
        """Return the terminals (of one role), sorted by name."""
        return sorted((n for n in self._nodes.values() if role is None or n.role == role), key=lambda n: n.name)

    def age_s(self, name: str, attribute: str, now_s: float) -> float:
        """Return the seconds since an attribute was last reported (``inf``: never); ``UnknownNode``."""
        held = self.node(name).attributes.get(attribute)
        return math.inf if held is None else max(0.0, now_s - held.t_s)

    def stale(self, now_s: float, limit_s: float) -> list[str]:
        """Return the names of terminals that gave no sign of life for longer than ``limit_s``, sorted."""
        return sorted(n.name for n in self._nodes.values() if now_s - n.heard_s > limit_s)

    def snapshot(self) -> dict[str, Any]:
        """Return the map as plain JSON-able values, for the page and the store."""
        return {n.name: msgspec.to_builtins(n) for n in self.nodes()}

    def _check_identity(self, name: str, role: str, kas: int, address: str, known: Node | None) -> None:
        if not name or len(name) > 32:
            raise BadReport(f"report of {name[:40]!r}: a terminal's name has 1 to 32 characters")
        if known is not None and (known.role, known.kas) != (role, kas):
            held = f"{known.role} of K-AS {known.kas}"
            raise BadReport(
                f"report of {name}: it is on the map as {held}, not {role} of K-AS {kas}; it must leave first"
            )
        if not 1 <= kas <= 255:
            raise BadReport(f"report of {name}: K-AS number {kas} is not in 1..255")
        if known is not None and known.address == address:
            return
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            raise BadReport(f"report of {name}: address {address!r} is not an IPv4 address") from None


def _checked(name: str, attribute: str, value: Any) -> Any:
    """Return the value as the map keeps it, or raise ``BadReport`` naming terminal, attribute and fault."""
    if len(attribute) > MAX_NAME:
        raise BadReport(f"report of {name}: attribute name {attribute[:MAX_NAME]!r}... is longer than {MAX_NAME}")
    try:
        return _CHECKS.get(attribute, _scalar)(value)
    except ValueError as fault:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise BadReport(f"report of {name}: {attribute} = {shown} {fault}") from None


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    if value < 0:
        raise ValueError("is negative")
    if value > MAX_NUMBER:
        raise ValueError(f"is more than {MAX_NUMBER:g}")
    return float(value)


def _count(value: Any) -> int:
    number = _amount(value)
    if number != int(number):
        raise ValueError("is not a whole number")
    return int(number)


def _positive_count(value: Any) -> int:
    number = _count(value)
    if number == 0:
        raise ValueError("is not positive")
    return number


def _share(value: Any) -> float:
    number = _amount(value)
    if number > 1.0:
        raise ValueError("is not a share in 0..1")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _shares(value: Any) -> dict[str, float]:
    """Shares per group: a distribution, or empty where there is no data."""
    if not isinstance(value, Mapping) or not all(isinstance(group, str) for group in value):
        raise ValueError("is not a mapping of group to share")
    if len(value) > MAX_GROUPS:
        raise ValueError(f"names {len(value)} groups, more than {MAX_GROUPS}")
    shares = {group: _share(share) for group, share in value.items()}
    total = sum(shares.values())
    if shares and abs(total - 1.0) > SHARE_TOLERANCE:
        raise ValueError(f"sums to {total:.3f}, not 1")
    return shares


def _models(value: Any) -> list[dict[str, Any]]:
    """Deployed models: ``["task", ...]``, or ``[{"task":, "accuracy": {...}, ...}]``; kept in the second form."""
    if not isinstance(value, list | tuple) or len(value) > MAX_ATTRIBUTES:
        raise ValueError(f"is not a list of at most {MAX_ATTRIBUTES} models")
    return [_model(item) for item in value]


def _model(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        item = {"task": item}
    if not isinstance(item, Mapping) or not isinstance(item.get("task"), str) or not item["task"]:
        raise ValueError("holds a model without a task")
    accuracy = item.get("accuracy", {})
    if not isinstance(accuracy, Mapping):
        raise ValueError("holds a model whose accuracy is not a mapping")
    asked_by = item.get("asked_by", {})
    if not isinstance(asked_by, Mapping) or len(asked_by) > MAX_ATTRIBUTES:
        raise ValueError("holds a model whose askers are not a mapping of K-AS to rate")
    if len(item) > MAX_ATTRIBUTES or len(accuracy) > MAX_GROUPS:
        raise ValueError(f"holds a model of more than {MAX_ATTRIBUTES} fields")
    rest = {
        _attribute_name(key): _MODEL_CHECKS.get(key, _scalar)(field)
        for key, field in item.items()
        if key not in ("accuracy", "asked_by")
    }
    if asked_by:
        rest["asked_by"] = {str(kas): _amount(rate) for kas, rate in asked_by.items()}
    return {**rest, "accuracy": {str(group): _share(share) for group, share in accuracy.items()}}


def _attribute_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ValueError(f"names a field in other than 1 to {MAX_NAME} characters")
    return value


def _label(value: Any) -> int:
    number = _count(value)
    if number > LABEL_MASK:
        raise ValueError("is no label")
    return number


def _identity(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError("is no object's identity")
    return value


def _since(value: Any) -> float:
    """Seconds, or -1: not known."""
    return -1.0 if value == -1 and not isinstance(value, bool) else _amount(value)


def _metrics(value: Any) -> dict[str, float]:
    """Raw metrics of somebody's own, by name."""
    if not isinstance(value, Mapping) or len(value) > MAX_METRICS:
        raise ValueError(f"is not a mapping of at most {MAX_METRICS} metrics to numbers")
    return {_metric_name(name): _figure(figure) for name, figure in value.items()}


def _metric_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_METRIC_NAME:
        raise ValueError(f"names a metric in other than 1 to {MAX_METRIC_NAME} characters")
    return value


def _figure(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_FIGURE:
        raise ValueError(f"holds a metric that is no number within {MAX_FIGURE:g}")
    return float(value)


def _scalar(value: Any) -> Any:
    """An attribute the map does not know: kept when it is one plain value."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not a finite number")
    if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
        raise ValueError(f"is more than {MAX_NUMBER:g}")
    if isinstance(value, str) and len(value) > 200:
        raise ValueError("is longer than 200 characters")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError("is neither an attribute the map knows nor a plain value")
    return value


_MODEL_CHECKS: dict[str, Callable[[Any], Any]] = {
    "label": _label,
    "job": _identity,
    "service_ms": _amount,
    "in_flight": _count,
    "arrivals_per_s": _amount,
    "up_s": _since,
    "hits": _count,
    "misses": _count,
}
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "samples": _count,
    "sample_bytes": _positive_count,
    "group_shares": _shares,
    "quality": _share,
    "data_age_s": _amount,
    "epsilon": _amount,
    "data_may_move": _flag,
    "compute_samples_per_s": _amount,
    "memory_mib": _amount,
    "queue": _count,
    "trust": _share,
    "reachable": _flag,
    "available_s": _amount,
    "models": _models,
    "load": _amount,
    "latency_ms": _amount,
    "test_samples": _count,
    "late_samples": _count,
    "metrics": _metrics,
}
