"""Memory and open files of every process of a run, job by job, and whether they grow: a line through each life.

A process that is killed and started again begins anew, so each life has its own intercept and all of a name one slope.
Memory is what is resident and of no file (RssAnon). Pages that a fork shares count from the start: what is private
alone grows by itself while others copy theirs.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments.chaos.oracle import What

WARM_JOBS: Final = 40  # of each life: caches fill, the first training step allocates
LEAST_SAMPLES: Final = 100
MOST_MB: Final = 1.0  # a process in 100 jobs
MOST_FILES: Final = 1.0  # in 100 jobs
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)


class Sample(msgspec.Struct, frozen=True):
    """A process after a number of jobs: its memory and open files."""

    jobs: int
    name: str
    pid: int
    anon_mb: float
    files: int


class Slope(msgspec.Struct, frozen=True):
    """What a process gains in 100 jobs, over all its lives; ``samples`` that the line goes through."""

    name: str
    mb: float
    files: float
    samples: int
    lives: int
    last_mb: float
    last_files: int


def sample(names: Mapping[int, str], jobs: int) -> list[Sample]:
    """Measure these processes now, {process id: name}; one that has ended meanwhile is left out."""
    found = []
    for pid, name in names.items():
        try:
            text = Path(f"/proc/{pid}/status").read_text()
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
        if size := _ANONYMOUS.search(text):
            found.append(Sample(jobs, name, pid, round(int(size[1]) / 1024, 3), files))
    return found


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """Return the slope of every name with enough samples after each life's first jobs, steepest first."""
    lives: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for one in samples:
        lives[one.name][one.pid].append(one)
    found = []
    for name, by_pid in lives.items():
        warm = [[s for s in life if s.jobs - life[0].jobs >= WARM_JOBS] for life in by_pid.values()]
        warm = [life for life in warm if len(life) > 1]
        count = sum(map(len, warm))
        if count >= LEAST_SAMPLES:
            mb = 100 * _slope([[(s.jobs, s.anon_mb) for s in life] for life in warm])
            files = 100 * _slope([[(s.jobs, float(s.files)) for s in life] for life in warm])
            last = warm[-1][-1]
            found.append(
                Slope(name, round(mb, 3), round(files, 3), count, len(warm), last.anon_mb, last.files)
            )  # fmt: skip
    return sorted(found, key=lambda s: -s.mb)


def _slope(lives: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Return the slope of parallel lines through these groups of points, least squares."""
    over = under = 0.0
    for points in lives:
        x0, y0 = (sum(p[i] for p in points) / len(points) for i in (0, 1))
        over += sum((x - x0) * (y - y0) for x, y in points)
        under += sum((x - x0) ** 2 for x, _ in points)
    return over / under if under else 0.0


def grown(found: Sequence[Slope]) -> dict[str, What]:
    """Return the processes that gain more than they may."""
    return {
        f"{s.name} gains {s.mb:.2f} MB, {s.files:.2f} open files in 100 jobs ({s.samples} samples, {s.lives} lives)": (
            "growth"
        )
        for s in found
        if s.mb > MOST_MB or s.files > MOST_FILES
    }
