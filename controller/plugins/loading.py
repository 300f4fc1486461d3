"""Engines of one's own by name: ``file.py:function``, ``module:function``, or an entry point of ``daitn.engines``."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from controller.errors import PluginError
from controller.plugins.contracts import CONTRACTS
from topologies.own.files import from_file, told

DEFAULT = "default"
GROUP = "daitn.engines"


def check_name(engine: str) -> None:
    """``PluginError`` when there is no engine of this name; it names the nearest."""
    if engine not in CONTRACTS:
        near = difflib.get_close_matches(engine, CONTRACTS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PluginError(f"no engine is called {engine!r}; {hint}there are: {', '.join(CONTRACTS)}")


def load(engine: str, spec: str) -> Callable[..., Any]:
    """Return an engine's function; ``PluginError`` is one line that says what to mend. Runs the file's top level."""
    check_name(engine)
    if spec == DEFAULT:
        return CONTRACTS[engine].of_default
    where, _, function = spec.rpartition(":")
    try:
        found = getattr(_module(engine, where), function) if where else _entry_point(engine, spec)
    except AttributeError:
        raise PluginError(f"engine {engine}: {where} has no function {function!r}") from None
    if not callable(found):
        raise PluginError(f"engine {engine}: {spec} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _module(engine: str, where: str) -> Any:
    try:
        return from_file(Path(where), "own") if where.endswith(".py") else importlib.import_module(where)
    except FileNotFoundError:
        raise PluginError(f"engine {engine}: there is no file {where}") from None
    except (Exception, SystemExit) as error:
        raise PluginError(f"engine {engine}: {where} cannot be loaded: {told(error, where)}") from error


def _entry_point(engine: str, name: str) -> Any:
    found = {e.name: e for e in entry_points(group=GROUP)}
    if name.endswith(".py"):
        raise PluginError(f"engine {engine}: {name} is a file; say which function of it: {name}:FUNCTION")
    if name not in found:
        known = f"installed are: {', '.join(sorted(found))}" if found else "none is installed"
        raise PluginError(
            f"engine {engine}: {name!r} is no entry point of {GROUP} ({known}); "
            f"give {DEFAULT}, file.py:function or module:function"
        )
    try:
        return found[name].load()
    except Exception as error:
        raise PluginError(f"engine {engine}: entry point {name} cannot be loaded: {error}") from error


def installed() -> Mapping[str, str]:
    """Return the entry points that packages on this machine offer: {name: module:function}."""
    return {e.name: e.value for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}
