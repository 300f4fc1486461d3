"""Text that is not ours on a screen that is: names as they are, whatever signs they have and the screen lacks."""

from __future__ import annotations

import codecs
import os
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape

PLAIN = {
    "✓": "+",
    "✗": "x",
    "↺": "<",
    "…": "...",
    "×": "x",
    "–": "-",
    "—": "-",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "\u2060": "",
}
WORD_JOINER = "\u2060"  # takes no room
PIPE_WIDTH = 250  # of a table that nobody looks at on a screen


def shown(text: Any) -> str:
    """Return a name or a sentence as rich shows it unchanged, in one line: no markup of its own, no line ends."""
    words = str(text).translate({10: "⏎", 13: "", 9: " "})
    if words.endswith("\\"):  # which would escape what follows
        return escape(words[:-1]) + "\\" + WORD_JOINER
    return escape(words)


class _Patient(Console):
    """A console whose reader may leave early: `daitn scenarios | head -1` has gone well."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that writes to a pipe without cutting, and to an ASCII terminal without an error."""
    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="plain")
    wide = not stream.isatty() and "COLUMNS" not in os.environ
    return _Patient(stderr=stderr, emoji=False, width=PIPE_WIDTH if wide else None)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace what an output's encoding lacks by plain signs, else by a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in signs), error.end


codecs.register_error("plain", _plainly)
