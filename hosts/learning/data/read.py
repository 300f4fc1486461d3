"""Reading labelled tables and texts: one file (``tables.py``), or the four UCI heart files. Nothing is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hosts.learning.data.tables import read_bytes, read_table
from hosts.learning.errors import LearningError, shown

LABEL_NAMES = ("label", "target", "class", "y", "diagnosis")
MISSING = frozenset({"", "?", "na", "nan", "null", "none"})

HEART_FILES = (
    "processed.cleveland.data",
    "processed.hungarian.data",
    "processed.switzerland.data",
    "processed.va.data",
)
HEART_COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
)  # fmt: skip
HEART_DROPPED = frozenset({"slope", "ca", "thal"})


class Rows(NamedTuple):
    """Raw rows: column names, rows of text cells, and the site (file) each row came from; ``notes``: what was left
    aside.
    """

    columns: list[str]
    cells: list[list[str]]
    sites: list[int]
    label: str
    notes: tuple[str, ...] = ()


def read_rows(path: str, label_column: str = "", columns: Sequence[str] = ()) -> Rows:
    """Read a file, or a directory of UCI heart files; ``LearningError`` says what is wrong, where, and the cure.

    ``columns``: those to learn from, where it is not all of them.
    """
    place = Path(path)
    if not path or not _exists(place):
        raise LearningError(
            f"data {shown(path, 200) or '(none)'}: no such file or directory; "
            "give --data a CSV or JSONL file, or the heart directory"
        )
    if place.is_dir():
        return _heart(place)
    names, cells, notes = read_table(place)
    label = _label(place, names, label_column)
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise LearningError(f"{place}: no column {shown(unknown[0])!r}; it has {_names(names)}")
    if columns:
        kept = [at for at, name in enumerate(names) if name in columns or name == label]
        names, cells = [names[at] for at in kept], [[row[at] for at in kept] for row in cells]
    return Rows(names, cells, [0] * len(cells), label, tuple(notes))


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # longer than the file system takes, or no path at all
        return False


def _label(place: Path, columns: list[str], wanted: str) -> str:
    if wanted:
        if wanted not in columns:
            raise LearningError(f"{place}: no column {wanted!r}; it has {_names(columns)}")
        return wanted
    known = [c for c in columns if c.lower() in LABEL_NAMES]
    if known:
        return known[0]
    raise LearningError(
        f"{place}: no label column; it has {_names(columns)}: name it with --label (label_column in a scenario)"
    )


def _names(columns: list[str]) -> str:
    return ", ".join(map(shown, columns[:12])) + (" ..." if len(columns) > 12 else "")


def _heart(place: Path) -> Rows:
    """The usual preparation (FLamby): drop slope, ca, thal, then rows with a missing value; label: any disease or
    none.
    """
    cells: list[list[str]] = []
    sites: list[int] = []
    keep = [i for i, name in enumerate(HEART_COLUMNS) if name not in HEART_DROPPED]
    for site, name in enumerate(HEART_FILES):
        file = place / name
        if not file.is_file():
            raise LearningError(
                f"{place}: no {name}; a directory must hold the four UCI heart files, else name one CSV or JSONL file"
            )
        for number, line in enumerate(_lines(file), start=1):
            row = [cell.strip() for cell in line.split(",")]
            if line.strip() and len(row) != len(HEART_COLUMNS):
                raise LearningError(
                    f"{file} line {number}: {len(row)} values instead of {len(HEART_COLUMNS)}; is the file cut?"
                )
            kept = [row[i] for i in keep] if line.strip() else [""]
            if all(cell.lower() not in MISSING for cell in kept):
                numbers = _numbers(f"{file} line {number}", kept)
                cells.append([*kept[:-1], "disease" if numbers[-1] > 0 else "healthy"])
                sites.append(site)
    return Rows([HEART_COLUMNS[i] for i in keep], cells, sites, "num")


def _lines(file: Path) -> list[str]:
    try:
        return read_bytes(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise LearningError(f"{file}: byte {problem.start} is not UTF-8 text; is it the heart file?") from None


def _numbers(where: str, cells: list[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        raise LearningError(f"{where}: {' '.join(cells)[:60]!r} holds something that is no number") from None
