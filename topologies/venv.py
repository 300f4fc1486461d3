"""Make the project's ``.venv`` importable where Debian's Python runs us, as ``mn --custom`` does.

Importing this module is enough; when msgspec cannot be had, it leaves with one line that says what to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def site_packages() -> Path:
    """Return where a ``.venv`` of this very Python version keeps its packages."""
    return ROOT / ".venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def python() -> str:
    """Return the Python that has the project's packages: the ``.venv``'s, else the running one."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def enable() -> None:
    """Append the ``.venv`` to ``sys.path``; leave with one line when msgspec cannot be had."""
    packages = str(site_packages())
    if packages not in sys.path:
        sys.path.append(packages)
    try:
        import msgspec  # noqa: F401
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        raise SystemExit(
            f"Python {version} finds no package 'msgspec' (looked in {packages}): run scripts/provision.sh in {ROOT}"
        ) from None


enable()
