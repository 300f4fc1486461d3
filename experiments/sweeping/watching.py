"""What a person sees of several runs at once: a moving line for each on a terminal; elsewhere a line as each ends."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from experiments.sweeping.runner import Running


def at_once(jobs: int) -> str:
    """Say how many runs go at a time, and what that means."""
    if jobs == 1:
        return ""
    cores = os.cpu_count() or 1
    slow = f", more than its {cores} cores: each takes longer, and deadlines count seconds" if jobs > cores else ""
    return f", {jobs} at a time on this machine{slow}"


class Watching:
    """Shows what is being done; a context manager."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Watching:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, running: Sequence[Running]) -> None:
        if self._live:
            lines = [f"  {task.label}  {task.seconds:4.0f} s  {task.words}" for task in running]
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
