"""Python files of one's own, loaded by their path: networks, engines, tasks, metrics."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

Base = TypeVar("Base")
Made = TypeVar("Made")


def absolute(spec: str, folder: Path) -> str:
    """Return a ``file.py:name`` that means the same from anywhere: its path is resolved from ``folder``."""
    where, colon, name = spec.rpartition(":")
    return f"{(folder / where).resolve()}:{name}" if colon and where.endswith(".py") else spec


def told(error: BaseException, file: str) -> str:
    """Return an exception as one line, with the last line of ``file`` that it went through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"{type(error).__name__}: {error}" + (f" ({Path(file).name}, line {lines[-1]})" if lines else "")


def from_file(path: Path, kind: str) -> ModuleType:
    """Return a file as a module of its own name among those of a ``kind``; its neighbours can be imported meanwhile.

    ``FileNotFoundError`` where there is none; whatever its top level raises goes through.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(f"daitn_{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def make_own(
    kind: str, spec: str, base: type[Base], make: Callable[[type[Base]], Made], error: type[Exception], hint: str = ""
) -> Made:
    """Return what ``make`` makes of the class that ``file.py:Class`` names, a subclass of ``base``.

    Whatever goes wrong is an ``error`` of one line that says what to mend, those that ``make`` raises
    itself as they are. Runs the file's top level.
    """
    where, _, name = spec.rpartition(":")
    if not where.endswith(".py") or not name:
        raise error(f"{kind} {spec!r}: give file.py:Class{hint}")
    try:
        found = getattr(from_file(Path(where), kind), name, None)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise error(f"{kind} {spec}: {where} has no subclass {name!r} of {base.__module__}.{base.__qualname__}")
        return make(found)
    except FileNotFoundError:
        raise error(f"{kind} {spec}: there is no file {where}") from None
    except error:
        raise
    except (Exception, SystemExit) as fault:
        raise error(f"{kind} {spec}: cannot be loaded: {told(fault, where)}") from fault


def own_function(what: str, spec: str, error: type[Exception]) -> Callable[..., object]:
    """Return the function that ``file.py:function`` names; an ``error`` of one line says what to mend. Runs the file's
    top level.
    """
    where, _, name = spec.rpartition(":")
    if not where.endswith(".py") or not name:
        raise error(f"{what}: {spec!r} is no function of a file: give file.py:function")
    try:
        found = getattr(from_file(Path(where), "function"), name, None)
    except FileNotFoundError:
        raise error(f"{what}: there is no file {where}") from None
    except (Exception, SystemExit) as fault:
        raise error(f"{what}: {where} cannot be loaded: {told(fault, where)}") from fault
    if not callable(found):
        raise error(f"{what}: {where} has no function {name!r}")
    return found  # type: ignore[no-any-return]
