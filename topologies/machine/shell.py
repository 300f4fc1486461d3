"""Run the network tools.

Lists of arguments, never a shell; batches on standard input; a refusal becomes a named error.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from topologies.errors import RefusedError, ToolMissingError

TIMEOUT_S = 30.0
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LINE = re.compile(r"Command failed -:(\d+)")


def find_tools() -> None:
    """Look for programs where root's are, too: a root through ``su`` has not got them in its PATH."""
    have = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*have, *(d for d in SBIN if d not in have)])


def run(*command: str, text: str | None = None, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it, whatever its status; ``ToolMissingError`` when it is not installed."""
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise ToolMissingError(f"program {command[0]!r} is not installed: run scripts/provision.sh") from None
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{command[0]} did not finish within {timeout_s:.0f} s: is Open vSwitch hanging?") from None


def must(*command: str, text: str | None = None) -> str:
    """Run a command that has to succeed and return its standard output."""
    done = run(*command, text=text)
    if done.returncode:
        raise RefusedError(f"{' '.join(command[:4])} ...: {one_line(done.stderr)}")
    return done.stdout


def batch(tool: str, lines: Sequence[tuple[str, str]]) -> None:
    """Feed ``ip`` or ``tc`` a batch of (line, what it is for); ``RefusedError`` names what was refused, and why."""
    if not lines:
        return
    done = run(tool, "-batch", "-", text="".join(f"{line}\n" for line, _ in lines))
    if done.returncode or done.stderr.strip():
        found = _LINE.search(done.stderr)
        line, purpose = lines[int(found[1]) - 1] if found else ("", "")
        reason = one_line(_LINE.sub("", done.stderr))
        raise RefusedError(f"{purpose}: {tool} {line!r} was refused: {reason}" if found else f"{tool}: {reason}")


def try_batch(tool: str, lines: Sequence[str]) -> None:
    """Feed a batch of which each line may fail (things to delete that may be gone already)."""
    if lines:
        run(tool, "-force", "-batch", "-", text="".join(f"{line}\n" for line in lines))


def one_line(text: str) -> str:
    """Fold a tool's complaint into one line."""
    return " ".join(text.split()) or "no reason given"
