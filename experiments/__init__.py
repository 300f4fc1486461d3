"""What researchers run. From Python: ``from experiments import Testbed`` (``experiments.api``)."""

from __future__ import annotations

from typing import Any

__all__ = ["Testbed"]


def __getattr__(name: str) -> Any:
    if name == "Testbed":
        from experiments.api import Testbed

        return Testbed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
