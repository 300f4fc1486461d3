"""Raw rows to tensors: numeric columns scaled, categorical columns one-hot, texts as numbers of their words.

Scaling. The heart files use fixed clinical constants (below), so no hospital tells anything. Any other table is
scaled by median and interquartile range of each column over the file that the scenario names: two aggregates per
column, listed in ``Table.scaling``; whoever splits one file among emulated nodes holds that file anyway. No label
takes part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hosts.learning.data.read import HEART_COLUMNS, HEART_DROPPED, MISSING, Rows
from hosts.learning.data.words import LONGEST_TEXT, Vocabulary, words
from hosts.learning.errors import LearningError, shown

NO_LABEL = MISSING - {"none"}  # a class may well be called so
LONG_PROSE = 8  # words: a column of names or phrases beside others is one category among them
MAX_CATEGORIES = 24
MAX_LABEL_CHARS = 120
MIN_ROWS = 40
MIN_PER_LABEL = 4
MAX_LABELS = 64
_WORD = re.compile(r"[^\W_]+")

# Centre and spread per column, from clinical reference ranges; sex, fbs and exang are 0/1 already.
HEART_SCALE = {
    "age": (55.0, 10.0),
    "trestbps": (130.0, 20.0),
    "chol": (200.0, 100.0),
    "thalach": (140.0, 25.0),
    "oldpeak": (1.0, 1.0),
}
HEART_CATEGORIES = {"cp": ("1", "2", "3", "4"), "restecg": ("0", "1", "2")}


@dataclass(frozen=True)
class Table:
    """Encoded rows: ``features`` (rows, width) float32, ``labels`` (rows,) into ``label_names``, ``sites`` (rows,).

    ``notes``: what was left aside, and the columns that are used. Of texts, ``features`` are int16 numbers of words in
    ``vocabulary``, and their names are their places.
    """

    features: np.ndarray
    labels: np.ndarray
    sites: np.ndarray
    label_names: list[str]
    feature_names: list[str]
    scaling: dict[str, tuple[float, float]] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    notes: tuple[str, ...] = ()


def encode(rows: Rows, *, source: str, text_column: str = "", as_text: bool = False) -> Table:
    """Encode rows; ``LearningError`` when there is too little to learn from."""
    at = rows.columns.index(rows.label)
    kept = [i for i, row in enumerate(rows.cells) if row[at].lower() not in NO_LABEL]
    cells = [rows.cells[i] for i in kept]
    names, labels = _labels([_class(row[at]) for row in cells], source, rows.label)
    columns = {name: [row[i] for row in cells] for i, name in enumerate(rows.columns) if i != at}
    if not columns:
        raise LearningError(f"{source}: only the label column {rows.label!r}; there is nothing to learn from")
    sites = np.asarray([rows.sites[i] for i in kept])
    notes = list(rows.notes)
    if len(kept) < len(rows.cells):
        notes.append(f"{len(rows.cells) - len(kept)} of {len(rows.cells)} rows have no label and are left aside")
    if as_text:
        name, texts = _texts(columns, text_column, source)
        vocabulary = Vocabulary.of(texts)
        features = vocabulary.encode_all(texts)
        places = [f"{name}#{at}" for at in range(features.shape[1])]
        notes += _said_of_texts(name, texts, columns)
        return Table(features, labels, sites, names, places, vocabulary=vocabulary, notes=tuple(notes))
    blocks, scaling = _columns(columns, rows)
    features = np.concatenate([block for _, block in blocks], axis=1).astype(np.float32)
    notes.append(f"{len(columns)} columns are learnt from: {_listed(columns)}")
    return Table(features, labels, sites, names, [n for ns, _ in blocks for n in ns], scaling, notes=tuple(notes))


def _said_of_texts(name: str, texts: list[str], columns: Iterable[str]) -> list[str]:
    long = [text for text in texts if len(text) > 3 * LONGEST_TEXT]  # a word is two letters and what parts it
    longer = sum(len(words(text)) > LONGEST_TEXT for text in long)
    cut = [f"{longer} texts are cut at {LONGEST_TEXT} words"] if longer else []
    others = [column for column in columns if column != name]
    aside = [f"texts of column {shown(name)} are learnt from; left aside: {_listed(others)}"] if others else []
    return cut + aside


def _listed(names: Iterable[str]) -> str:
    every = [*names]
    return ", ".join(map(shown, every[:8])) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _class(cell: str) -> str:
    """Return a class in its plain form: ``0.0`` and ``0`` are one."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else cell


def is_prose(rows: Rows) -> bool:
    """Tell whether a file is one of texts: it has a column of prose, and that is long or has nothing beside it."""
    prose = _prose(rows)
    others = set(rows.columns) - prose.keys() - {rows.label}
    return bool(prose) and (not others or max(prose.values()) >= LONG_PROSE)


def prose_columns(rows: Rows) -> list[str]:
    """Return the columns that hold prose: at least three words in the median cell, and hardly ever the same twice."""
    return [*_prose(rows)]


def _prose(rows: Rows) -> dict[str, int]:
    """Return the columns of prose, and how many words their median cell has."""
    found = {}
    for at, name in enumerate(rows.columns):
        cells = [row[at] for row in rows.cells]
        if name == rows.label or not cells:
            continue
        lengths = sorted(len(_WORD.findall(cell)) for cell in cells)
        median = lengths[len(lengths) // 2]
        if median >= 3 and len(set(cells)) > len(cells) / 2:
            found[name] = median
    return found


def _labels(cells: list[str], source: str, column: str) -> tuple[list[str], np.ndarray]:
    if len(cells) < MIN_ROWS:
        raise LearningError(
            f"{source}: {len(cells)} labelled rows; at least {MIN_ROWS} are needed to share out and test"
        )
    if "healthy" in cells and set(cells) <= {"healthy", "disease"}:
        names = ["healthy", "disease"]
    else:
        names = sorted(set(cells))
    if len(names) < 2:
        raise LearningError(
            f"{source}: column {column!r} holds one class only ({names[0][:24]!r}); learning needs two or more"
        )
    if len(names) > MAX_LABELS:
        raise LearningError(
            f"{source}: column {column!r} holds {len(names)} different values; at most {MAX_LABELS} can be classes"
        )
    longest = max(names, key=len)
    if len(longest) > MAX_LABEL_CHARS:
        raise LearningError(
            f"{source}: class {shown(longest)!r}... of column {column!r} has {len(longest)} characters; at most "
            f"{MAX_LABEL_CHARS} can name a class"
        )
    place = {name: at for at, name in enumerate(names)}
    labels = np.asarray([place[cell] for cell in cells])
    rare = int(np.bincount(labels).min())
    if rare < MIN_PER_LABEL:
        name = names[int(np.bincount(labels).argmin())]
        raise LearningError(
            f"{source}: class {name[:24]!r} has {rare} rows; each class needs {MIN_PER_LABEL}, merge or drop it"
        )
    return names, labels


Block = tuple[list[str], np.ndarray]


def _columns(columns: dict[str, list[str]], rows: Rows) -> tuple[list[Block], dict[str, tuple[float, float]]]:
    heart = set(rows.columns) == set(HEART_COLUMNS) - HEART_DROPPED and rows.label == "num"
    blocks: list[Block] = []
    scaling: dict[str, tuple[float, float]] = {}
    for name, cells in columns.items():
        values = _numbers(cells)
        if heart and name in HEART_CATEGORIES:
            blocks.append(_one_hot(name, [_whole(c) for c in cells], HEART_CATEGORIES[name]))
        elif values is None:
            blocks.append(_one_hot(name, cells, _common(cells)))
        else:
            scaling[name] = HEART_SCALE.get(name, (0.0, 1.0)) if heart else _robust(values)
            centre, spread = scaling[name]
            scaled = np.nan_to_num((values - centre) / spread, nan=0.0, posinf=0.0, neginf=0.0)
            blocks.append(([name], scaled.clip(-6, 6)[:, None]))
    return blocks, scaling


def _whole(cell: str) -> str:
    """Return a category written as a number ("3.0") in its plain form ("3"); anything else as it is."""
    try:
        return str(int(float(cell)))
    except (ValueError, OverflowError):
        return cell


def _numbers(cells: list[str]) -> np.ndarray | None:
    try:
        return np.asarray([np.nan if c.lower() in MISSING else float(c) for c in cells])
    except ValueError:
        return None


def _robust(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, centre, high = np.percentile(finite, [25, 50, 75])
    return float(centre), float((high - low) / 1.35 or finite.std() or 1.0)


def _common(cells: list[str]) -> tuple[str, ...]:
    values, counts = np.unique(np.asarray(cells), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    return tuple(str(values[i]) for i in order if str(values[i]).lower() not in MISSING)


def _one_hot(name: str, cells: list[str], values: tuple[str, ...]) -> Block:
    block = np.asarray([[float(cell == value) for value in values] for cell in cells]).reshape(len(cells), len(values))
    return [f"{name}={value[:24]}" for value in values], block


def _texts(columns: dict[str, list[str]], wanted: str, source: str) -> tuple[str, list[str]]:
    name = wanted or max(columns, key=lambda c: sum(len(cell) for cell in columns[c]))
    if name not in columns:
        raise LearningError(f"{source}: no text column {name!r}; it has {', '.join(map(shown, columns))}")
    return name, columns[name]
