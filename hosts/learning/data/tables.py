"""Tables as people have them, read into cells of text: CSV of any separator and encoding, JSON, Excel; gzipped.

Everything that is left aside or taken for something else is a note, for a person to read.  Nothing is executed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from hosts.learning.errors import LearningError, shown

MAX_FILE_BYTES = 512 << 20
SEPARATORS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
_INDEX_NAMES = ("", "index", "Unnamed: 0")
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Cells(NamedTuple):
    """Column names, rows of text cells, and notes on what was left aside."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def read_table(place: Path) -> Cells:
    """Read one file; ``LearningError`` says what is wrong and where."""
    raw = read_bytes(place)
    name = place.name.removesuffix(".gz")
    if name.endswith((".xlsx", ".xls", ".ods")):
        found = _excel(place, raw)
    else:
        text, notes = _text(place, raw)
        if not text.strip():
            raise LearningError(f"{place}: empty file; it needs a header line and labelled rows")
        is_json = name.endswith((".jsonl", ".ndjson", ".json"))
        found = _json(place, text) if is_json else _csv(place, text)
        found.notes[:0] = notes
    return _without_idle_columns(_named(place, found))


def read_bytes(place: Path) -> bytes:
    """Return a file's bytes, unpacked where they are gzip; ``LearningError`` when it is too large or not to be read."""
    try:
        if place.stat().st_size > MAX_FILE_BYTES:
            raise LearningError(f"{place}: over {MAX_FILE_BYTES >> 20} MiB; sample its rows first")
        raw = place.read_bytes()
    except OSError as problem:
        raise LearningError(f"{place}: cannot be read ({problem.strerror}); check its permissions") from None
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as packed:
            raw = packed.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise LearningError(f"{place}: not a whole gzip file ({problem}); copy it again") from None
    if len(raw) > MAX_FILE_BYTES:
        raise LearningError(f"{place}: over {MAX_FILE_BYTES >> 20} MiB unpacked; sample its rows first")
    return raw


def _text(place: Path, raw: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if raw.startswith(mark):
            try:
                return raw.decode(encoding), []
            except UnicodeDecodeError as problem:
                raise LearningError(f"{place}: byte {problem.start} is no {encoding} text; is the file cut?") from None
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError as problem:
        if b"\0" in raw[:4096]:
            raise LearningError(f"{place}: byte {problem.start} is no text; give a CSV, JSON or Excel file") from None
        return raw.decode("cp1252", errors="replace"), ["not UTF-8: read as Windows-1252 (Latin-1)"]


def _csv(place: Path, text: str) -> Cells:
    header = text.lstrip("\r\n").partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    csv.field_size_limit(MAX_FILE_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [[cell.strip() for cell in line] for line in reader if line]
    except csv.Error as problem:
        what = "a quote is not closed" if "end of data" in str(problem) else str(problem)
        raise LearningError(f"{place} line {reader.line_num}: {what}; close it, or is the file cut?") from None
    columns, rows = lines[0], lines[1:]
    for number, line in enumerate(rows, start=2):
        if len(line) != len(columns):
            last = number == len(lines) and len(line) < len(columns)
            cure = "is the file cut?" if last else f"quote cells that hold {separator!r}"
            raise LearningError(f"{place} row {number}: {len(line)} cells where the header has {len(columns)}; {cure}")
    return Cells(columns, rows, [] if separator == "," else _decimal_commas(columns, rows))


def _decimal_commas(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Turn decimal commas into points, column by column; return notes on it."""
    notes = []
    for at, name in enumerate(columns):
        cells = [row[at] for row in rows if row[at]]
        if any("," in cell for cell in cells) and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells):
            for row in rows:
                row[at] = row[at].replace(",", ".")
            notes.append(f"column {shown(name)}: commas read as decimal points")
    return notes


def _json(place: Path, text: str) -> Cells:
    records = _json_array(place, text) if text.lstrip()[:1] == "[" else _json_lines(place, text)
    columns = list(dict.fromkeys(name for record in records for name in record))
    nested = sorted({n for r in records for n, v in r.items() if isinstance(v, (list, dict)) and _single(v) is None})
    notes = [f"column {shown(name)}: lists and objects in it are left aside" for name in nested]
    return Cells(columns, [[_cell(record.get(name)) for name in columns] for record in records], notes)


def _json_array(place: Path, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise LearningError(f"{place}: neither one JSON array of objects nor an object per line; is it cut?") from None
    for number, record in enumerate(found, start=1):
        if not isinstance(record, dict):
            raise LearningError(
                f"{place} entry {number}: {type(record).__name__} instead of an object with named values"
            )
    return list(found)


def _json_lines(place: Path, text: str) -> list[dict[str, Any]]:
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
    return records


def _single(value: Any) -> Any:
    """Return the one element of a list of one (labels often come so), else None."""
    return value[0] if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], (list, dict)) else None


def _cell(value: Any) -> str:
    if isinstance(value, (list, dict)):
        value = _single(value)
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()


def _excel(place: Path, raw: bytes) -> Cells:
    import pandas  # half a second: only where one is read

    try:
        sheets = pandas.ExcelFile(io.BytesIO(raw))
        frame = sheets.parse(sheets.sheet_names[0], header=None, dtype=str, keep_default_na=False, na_filter=False)
    except ImportError:
        raise LearningError(
            f"{place}: reading Excel files needs openpyxl, which `pip install openpyxl` installs; or save it as CSV"
        ) from None
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, SyntaxError) as problem:
        raise LearningError(
            f"{place}: no Excel file ({' '.join(str(problem).split())[:120]}); save it as CSV"
        ) from None
    if frame.empty:
        raise LearningError(f"{place}: empty first sheet; it needs a header line and labelled rows")
    lines = [[str(cell).strip() for cell in line] for line in frame.itertuples(index=False)]
    others = [f"only the first sheet, {shown(str(sheets.sheet_names[0]))}, is read"] * (len(sheets.sheet_names) > 1)
    return Cells(lines[0], lines[1:], others)


def _named(place: Path, found: Cells) -> Cells:
    """Give columns without a name one; a name that occurs twice is an error."""
    named = [name or f"column {at}" for at, name in enumerate(found.columns, start=1)]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise LearningError(f"{place}: a column name occurs twice: {shown(twice[0])!r}; rename one")
    return found._replace(columns=named)


def _without_idle_columns(found: Cells) -> Cells:
    """Leave aside columns in which nothing stands, and a first one that only numbers the rows."""
    idle: dict[int, str] = {}
    for at, name in enumerate(found.columns):
        cells = [row[at] for row in found.rows]
        if found.rows and not any(cells):
            idle[at] = f"{_called(name)}: empty, left aside"
        elif at == 0 and name in (*_INDEX_NAMES, "column 1") and _numbers_rows(cells):
            idle[at] = f"{_called(name)}: numbers the rows, left aside"
    if not idle or len(idle) == len(found.columns):
        return found
    kept = [at for at in range(len(found.columns)) if at not in idle]
    rows = [[row[at] for at in kept] for row in found.rows]
    return Cells([found.columns[at] for at in kept], rows, [*found.notes, *idle.values()])


def _called(name: str) -> str:
    return name if re.fullmatch(r"column \d+", name) else f"column {shown(name)}"


def _numbers_rows(cells: list[str]) -> bool:
    return any(cells == [str(number) for number in range(first, first + len(cells))] for first in (0, 1))
