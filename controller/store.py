"""What a control centre knows, in SQLite: nodes, jobs, visits, decisions with their reasons. One file, one writer, WAL.

A new run starts from an empty file; a control centre that is started again in one goes on writing where it was.  Others
may read it while it is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (name TEXT PRIMARY KEY, role TEXT, kas INTEGER, address TEXT, attributes TEXT,
                                  t_unix_s REAL);
CREATE TABLE IF NOT EXISTS jobs (object_id TEXT PRIMARY KEY, owner TEXT, state TEXT, spec TEXT, broad REAL, expert REAL,
                                 reason TEXT, t_unix_s REAL);
CREATE TABLE IF NOT EXISTS visits (object_id TEXT, visit INTEGER, kas INTEGER, action TEXT, node TEXT, data_node TEXT,
                                   detail TEXT, t_unix_s REAL, PRIMARY KEY (object_id, visit, action));
CREATE TABLE IF NOT EXISTS decisions (object_id TEXT, visit INTEGER, action TEXT, kas INTEGER, handle TEXT, reason TEXT,
                                      ages TEXT, plan TEXT, t_unix_s REAL);
CREATE TABLE IF NOT EXISTS freshness (name TEXT PRIMARY KEY, kas INTEGER, detail TEXT, t_unix_s REAL);
CREATE TABLE IF NOT EXISTS cuts (object_id TEXT, kas INTEGER, detail TEXT, t_unix_s REAL,
                                 PRIMARY KEY (object_id, kas));
CREATE TABLE IF NOT EXISTS runs (run TEXT);
CREATE TABLE IF NOT EXISTS revoked (kas INTEGER PRIMARY KEY, word TEXT, t_unix_s REAL);
CREATE TABLE IF NOT EXISTS trust (name TEXT, kas INTEGER, trust REAL, why TEXT, t_unix_s REAL);
"""
TABLES = ("nodes", "jobs", "visits", "decisions", "freshness", "cuts", "trust", "revoked")
_json = msgspec.json.Encoder()


def as_json(value: Any) -> str:
    """Return a value as JSON text."""
    return _json.encode(value).decode()


class Store:
    """The database of one DCC process. ``path`` None keeps it in memory; ``run``: what is of another is deleted."""

    def __init__(self, path: Path | None = None, run: str = "") -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)
        if not run or self._db.execute("SELECT run FROM runs").fetchall() != [(run,)]:
            for table in (*TABLES, "runs"):
                self._db.execute(f"DELETE FROM {table}")  # a fixed name of ours, not data
            self._db.execute("INSERT INTO runs VALUES (?)", (run,))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what follows in one transaction (much cheaper than one each); none of it where an error comes."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def node(self, name: str, role: str, kas: int, address: str, attributes: dict[str, Any]) -> None:
        """What the map now holds of a terminal; replaces what it held."""
        row = (name, role, kas, address, as_json(attributes), time.time())
        self._db.execute("INSERT OR REPLACE INTO nodes VALUES (?,?,?,?,?,?)", row)

    def node_gone(self, name: str) -> None:
        """A terminal is off the map."""
        self._db.execute("DELETE FROM nodes WHERE name = ?", (name,))
        self._db.execute("DELETE FROM freshness WHERE name = ?", (name,))

    def job(self, object_id: int, owner: str, state: str, spec: Any, broad: float, expert: float, reason: str) -> None:
        """The state of a job, with the accuracies (0..1) that MPVUs measured last."""
        row = (str(object_id), owner, state, as_json(spec), broad, expert, reason, time.time())
        self._db.execute("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?)", row)

    def visit(self, object_id: int, visit: int, kas: int, action: str, node: str, data_node: str, detail: Any) -> None:
        """What became of one visit of an object; a later word on the same visit replaces it."""
        row = (str(object_id), visit, kas, action, node, data_node, as_json(detail), time.time())
        self._db.execute("INSERT OR REPLACE INTO visits VALUES (?,?,?,?,?,?,?,?)", row)

    def decision(
        self, object_id: int, visit: int, action: str, kas: int, handle: str, reason: str, ages: Any, plan: Any
    ) -> None:
        """One stop decided: where and why, on attributes of which ages (seconds), by which plan."""
        row = (str(object_id), visit, action, kas, handle, reason, as_json(ages), as_json(plan), time.time())
        self._db.execute("INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?,?)", row)

    def freshness(self, detail: dict[str, Any]) -> None:
        """How old and how dear what is known of a terminal is (``gathering.freshness_of``)."""
        row = (detail["name"], detail["kas"], as_json(detail), time.time())
        self._db.execute("INSERT OR REPLACE INTO freshness VALUES (?,?,?,?)", row)

    def cut(self, object_id: int, kas: int, detail: Any) -> None:
        """The latest topology that was cut for a job in one K-AS (MS-DRRT)."""
        row = (str(object_id), kas, as_json(detail), time.time())
        self._db.execute("INSERT OR REPLACE INTO cuts VALUES (?,?,?,?)", row)

    def trust(self, name: str, kas: int, trust: float, why: str) -> None:
        """Why a terminal's trust is what it is now."""
        self._db.execute("INSERT INTO trust VALUES (?,?,?,?,?)", (name, kas, trust, why, time.time()))

    def revoked(self, kas: int, word: str) -> None:
        """Who is revoked in a K-AS, as its control centre signed it; replaces what it said before."""
        self._db.execute("INSERT OR REPLACE INTO revoked VALUES (?,?,?)", (kas, word, time.time()))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return a table's rows; ``ValueError`` for a table that is not ours."""
        if table not in TABLES:
            raise ValueError(f"no table {table}; there are {', '.join(TABLES)}")
        cursor = self._db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def close(self) -> None:
        """Close the database; nothing can be written after."""
        self._db.close()
