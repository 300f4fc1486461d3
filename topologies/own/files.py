"""Python files of one's own, loaded by their path: networks, engines, tasks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


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
