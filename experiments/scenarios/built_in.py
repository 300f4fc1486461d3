"""The scenarios that come along: each a YAML file of this folder, by its name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the built-in scenarios."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))
