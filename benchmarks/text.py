"""Is the text task worth its name?  Pooled, beside TF-IDF and logistic regression of scikit-learn on the same rows.

    make bench-text                      # six corpora, two minutes on one core; the last line is JSON
    python -m benchmarks.text --data FILE.csv   # your own table of texts beside them

Corpora: docstrings of packages that are installed anyway, the first words of each, without the package's own name;
which package is the question.  The same training rows, the same test rows (those of an MPVU and its second, joined) for
both. The first two corpora were used to choose the vectors' scale; the others were not.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import importlib.util
import random
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.common import finish, run_main, say
from experiments.run import POOLED_EPOCHS
from hosts.learning.data.encode import prose_columns
from hosts.learning.data.read import read_rows
from hosts.learning.task import Samples, Task, TaskSpec, TextTask, TrainSettings, concat_samples, load_task, partition

WITHIN = 0.02
LEAST_WORDS = 25
CORPORA: dict[str, tuple[dict[str, int], int]] = {
    "four libraries": ({"scipy": 633, "sklearn": 520, "torch": 475, "pandas": 299}, 60),
    "four libraries, few words": ({"scipy": 633, "sklearn": 520, "torch": 475, "pandas": 299}, 25),
    "parts of scipy": (
        {f"scipy/{part}": 300 for part in ("stats", "optimize", "signal", "linalg", "special", "spatial")}, 60,
    ),
    "four others": ({"matplotlib": 500, "networkx": 400, "numpy": 300, "sympy": 300}, 40),
    "parts of torch": ({f"torch/{part}": 250 for part in ("nn", "distributed", "optim", "_inductor")}, 40),
    "small": ({"flask": 80, "werkzeug": 120, "networkx": 120, "scapy": 120}, 40),
}  # fmt: skip


def docstrings(package: str, words: int) -> list[str]:
    """Return the beginnings of a package's docstrings, without its name; none where it is not installed."""
    name, _, part = package.partition("/")
    spec = importlib.util.find_spec(name)
    found: set[str] = set()
    for root in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted((Path(root) / part).rglob("*.py")):
            if "test" not in file.as_posix().removeprefix(root):
                found |= set(_docstrings(file, words, name))
    return sorted(found)


def _docstrings(file: Path, words: int, name: str) -> Iterator[str]:
    with contextlib.suppress(SyntaxError, UnicodeDecodeError):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                said = (ast.get_docstring(node) or "").split()
                if len(said) >= LEAST_WORDS:
                    yield re.sub(name, "", " ".join(said[:words]), flags=re.IGNORECASE)


def write_corpus(file: Path, counts: Mapping[str, int], *, words: int, seed: int) -> Path:
    """Write a table of texts and their packages, up to so many of each, in an order that the seed gives."""
    rng = random.Random(seed)
    rows: list[tuple[str, str]] = []
    for package, most in counts.items():
        texts = docstrings(package, words)
        rows += [(text, package) for text in rng.sample(texts, min(most, len(texts)))]
    rng.shuffle(rows)
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("abstract", "label"), *rows])
    return file


def shares(task: Task, seed: int) -> tuple[Samples, Samples]:
    """Return all training rows and all test rows of a task whose data lie at six nodes."""
    parts = partition(task, [f"h{n}" for n in range(6)], seed).values()
    return concat_samples([p.train for p in parts]), concat_samples([s for p in parts for s in p.test])


def pooled(task: Task, seed: int = 0) -> float:
    """Return what the task's own model reaches when it is trained in one place, as ``compare_pooled`` does."""
    train, test = shares(task, seed)
    model = task.new_model(seed)
    task.train(model, train, TrainSettings(epochs=POOLED_EPOCHS[task.spec.name], seed=seed))
    return task.evaluate(model, test).broad


def baseline(task: TextTask, seed: int = 0) -> float:
    """Return what TF-IDF and logistic regression reach on the same rows, given as texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = read_rows(task.spec.data, task.spec.label_column, task.spec.columns)
    at = rows.columns.index(task.spec.text_column or prose_columns(rows)[0])
    numbers = task.table.features.tolist()
    named = {tuple(row): cells[at] for row, cells in zip(numbers, rows.cells, strict=True)}
    train, test = (
        ([named[tuple(row)] for row in part.inputs.tolist()], part.labels.tolist()) for part in shares(task, seed)
    )
    vectors = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train[0]), train[1])
    return float(model.score(vectors.transform(test[0]), test[1]))


def load_texts(file: Path) -> TextTask:
    """Return a file's task of texts."""
    task = load_task(TaskSpec(name="text", data=str(file)))
    assert isinstance(task, TextTask)
    return task


def measure(file: Path, seeds: int) -> tuple[float, float]:
    """Return (ours, baseline), each the mean over some seeds."""
    task = load_texts(file)
    ours, theirs = zip(*((pooled(task, seed), baseline(task, seed)) for seed in range(seeds)), strict=True)
    return sum(ours) / seeds, sum(theirs) / seeds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="how many partitions and trainings each [default: 8]")
    parser.add_argument("--data", type=Path, action="append", default=[], help="a table of texts of your own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, dict[str, float]] = {}
    say(f"{'corpus':28}{'ours':>8}{'TF-IDF + LR':>13}{'difference':>12}")
    with tempfile.TemporaryDirectory(prefix="daitn-text-") as folder:
        files = {str(file): file for file in args.data}
        for number, (name, (counts, words)) in enumerate(CORPORA.items()):
            files[name] = write_corpus(Path(folder) / f"{number}.csv", counts, words=words, seed=number)
        for name, file in files.items():
            ours, theirs = measure(file, args.seeds)
            result[name] = {"ours": round(ours, 4), "baseline": round(theirs, 4)}
            say(f"{name[-27:]:28}{ours:8.3f}{theirs:13.3f}{ours - theirs:+12.3f}")
    worst = min(r["ours"] - r["baseline"] for r in result.values())
    finish({"benchmark": "text", "corpora": result, "worst_difference": round(worst, 4), "within": WITHIN})
    return 0 if worst >= -WITHIN else 1


if __name__ == "__main__":
    run_main(main)
