"""Reading labelled tables and texts: CSV or JSON lines, and the four UCI heart files. Values only, nothing is
executed.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from hosts.learning.errors import LearningError, shown

LABEL_NAMES = ("label", "target", "class", "y", "diagnosis")
MISSING = frozenset({"", "?", "na", "nan", "null", "none"})
MAX_FILE_BYTES = 512 << 20

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
    """Raw rows: column names, rows of text cells, and the site (file) each row came from."""

    columns: list[str]
    cells: list[list[str]]
    sites: list[int]
    label: str


def read_rows(path: str, label_column: str = "") -> Rows:
    """Read a file, or a directory of UCI heart files; ``LearningError`` says what is wrong, where, and the cure."""
    place = Path(path)
    if not path or not _exists(place):
        raise LearningError(
            f"data {shown(path, 200) or '(none)'}: no such file or directory; "
            "give --data a CSV or JSONL file, or the heart directory"
        )
    if place.is_dir():
        return _heart(place)
    text = _text(place)
    columns, cells = _json_lines(place, text) if place.suffix in (".jsonl", ".ndjson", ".json") else _csv(place, text)
    label = _label(place, columns, label_column)
    return Rows(columns, cells, [0] * len(cells), label)


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # longer than the file system takes, or no path at all
        return False


def _text(place: Path) -> str:
    try:
        if place.stat().st_size > MAX_FILE_BYTES:
            raise LearningError(f"{place}: over {MAX_FILE_BYTES >> 20} MiB; sample its rows first")
        return place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise LearningError(
            f"{place}: byte {problem.start} is not UTF-8 text; convert it to UTF-8 CSV or JSONL"
        ) from None
    except OSError as problem:
        raise LearningError(f"{place}: cannot be read ({problem.strerror}); check its permissions") from None


def _csv(place: Path, text: str) -> tuple[list[str], list[list[str]]]:
    if not text.strip():
        raise LearningError(f"{place}: empty file; it needs a header line and labelled rows")
    header = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [[cell.strip() for cell in line] for line in reader if line]
    except csv.Error as problem:
        raise LearningError(
            f"{place} line {reader.line_num}: {problem}; is the file cut, or a quote not closed?"
        ) from None
    columns = lines[0]
    if len(set(columns)) != len(columns):
        raise LearningError(f"{place}: a column name occurs twice in {_names(columns)}; rename one")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise LearningError(
                f"{place} row {number}: {len(line)} cells where the header has {len(columns)}; is the file cut?"
            )
    return columns, lines[1:]


def _json_lines(place: Path, text: str) -> tuple[list[str], list[list[str]]]:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON allows U+2028
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError too
            raise LearningError(f"{place} line {number}: not one JSON object per line; is the file cut?") from None
        if not isinstance(record, dict):
            raise LearningError(
                f"{place} line {number}: {type(record).__name__} instead of an object with named values"
            )
        records.append(record)
    columns = list(dict.fromkeys(name for record in records for name in record))
    return columns, [[_cell(record.get(name)) for name in columns] for record in records]


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (list, dict)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()


def _label(place: Path, columns: list[str], wanted: str) -> str:
    if wanted:
        if wanted not in columns:
            raise LearningError(f"{place}: no column {wanted!r}; it has {_names(columns)}")
        return wanted
    known = [c for c in columns if c.lower() in LABEL_NAMES]
    if known:
        return known[0]
    raise LearningError(
        f"{place}: no label column; it has {_names(columns)}: rename one to 'label' or say which with label_column"
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
        for number, line in enumerate(_text(file).splitlines(), start=1):
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


def _numbers(where: str, cells: list[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        raise LearningError(f"{where}: {' '.join(cells)[:60]!r} holds something that is no number") from None
