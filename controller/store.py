"""What a control centre knows, in SQLite: nodes, jobs, visits, decisions with their reasons, who did what; and its own
state, by which it goes on after a death where it was (``Kept``).

One file, one writer, WAL.  A new run starts from an empty file; a control centre that is started again in one goes on
writing where it was.  Others may read it while it is written.  It is bounded: of each table the newest ``ROWS_KEPT``
rows stay, of each kept mapping as many entries as its room says.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from controller.runtime.bounded import KEPT
from controller.runtime.database import Database, Warn
from packets.events import Emit
from packets.security.clock import unix_s

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
CREATE TABLE IF NOT EXISTS audit (what TEXT, who TEXT, object_id TEXT, detail TEXT, t_unix_s REAL);
CREATE TABLE IF NOT EXISTS state (room TEXT, key BLOB, value BLOB, PRIMARY KEY (room, key));
"""
TABLES = ("nodes", "jobs", "visits", "decisions", "freshness", "cuts", "trust", "audit", "revoked")
ROWS_KEPT = 20_000  # of each table
AUDITED = {  # what somebody did, or was refused, by kind of event: the field that says who
    "job.submitted": "owner", "job.assessed": "", "job.changed": "owner", "job.finished": "", "job.recovered": "",
    "terminal.joined": "name", "terminal.left": "name", "terminal.withdrawn": "name", "terminal.revoked": "name",
    "packet.refused": "node", "request.refused": "node", "proposal.refused": "node", "query.refused": "node",
    "trust.changed": "name", "agent.gone": "name", "object.resteered": "holder", "model.moved": "",
    "model.retired": "node",
}  # fmt: skip
Key = TypeVar("Key")
Value = TypeVar("Value")
Other = TypeVar("Other")
_json = msgspec.json.Encoder()


def as_json(value: Any) -> str:
    """Return a value as JSON text."""
    return _json.encode(value).decode()


class Store:
    """The database of one DCC process. ``path`` None keeps it in memory; ``run``: what is of another is deleted.

    ``again``: it has been written in this run before. ``damaged``: that may be so, but nothing of it is left.
    """

    def __init__(self, path: Path | None = None, run: str = "", warn: Warn = lambda text: None) -> None:
        self.database = Database(path, SCHEMA, warn)
        self.again = bool(run) and self.database.read("SELECT run FROM runs").fetchall() == [(run,)]
        self.damaged = self.database.damaged
        if not self.again:
            with self.together():
                for table in (*TABLES, "state", "runs"):
                    self._write(f"DELETE FROM {table}")  # a fixed name of ours, not data
                self._write("INSERT INTO runs VALUES (?)", run)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Write what follows in one transaction; none of it where an error comes."""
        return self.database.together()

    def commit(self) -> None:
        """Have all that was written outlive this process: to be called before anything of it is told."""
        self.database.commit()

    def _write(self, sql: str, *row: Any) -> None:
        self.database.write(sql, row)

    def kept(self, room: str, key: type[Key], value: type[Value], most: int = KEPT) -> Kept[Key, Value]:
        """Return a mapping that is written down as it changes, as an earlier life left it. One for each ``room``."""
        return Kept(self.database, room, key, value, most)

    def upkeep(self) -> None:
        """Forget what is oldest (periodic), and write what a full disk would not take."""
        self.database.retry()
        self.database.shorten()
        for table in TABLES:
            self._write(f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - {ROWS_KEPT}")

    def audited(self, emit: Emit) -> Emit:
        """Return a voice by which nothing is told that is not written down; deeds and refusals are, by themselves."""

        def tell(kind: str, /, **data: Any) -> None:
            if kind in AUDITED:
                self.audit(kind, str(data.get(AUDITED[kind], "")), data.get("object_id", 0), data)
            self.commit()
            emit(kind, **data)

        return tell

    def audit(self, what: str, who: str, object_id: int, detail: Any) -> None:
        """Somebody did something, or was refused."""
        row = (what, who, str(object_id), as_json(detail), unix_s())
        self._write("INSERT INTO audit VALUES (?,?,?,?,?)", *row)

    def epoch(self, now: int) -> int:
        """Return a number that is larger than in any earlier life, whatever the clock says: ``now``, else one more."""
        lives = self.kept("epoch", str, int, 1)
        lives["epoch"] = max(now, lives.get("epoch", 0) + 1)
        return lives["epoch"]

    def node(self, name: str, role: str, kas: int, address: str, attributes: dict[str, Any]) -> None:
        """What the map now holds of a terminal; replaces what it held."""
        row = (name, role, kas, address, as_json(attributes), unix_s())
        self._write("INSERT OR REPLACE INTO nodes VALUES (?,?,?,?,?,?)", *row)

    def node_gone(self, name: str) -> None:
        """A terminal is off the map."""
        self._write("DELETE FROM nodes WHERE name = ?", name)
        self._write("DELETE FROM freshness WHERE name = ?", name)

    def job(self, object_id: int, owner: str, state: str, spec: Any, broad: float, expert: float, reason: str) -> None:
        """The state of a job, with the accuracies (0..1) that MPVUs measured last."""
        row = (str(object_id), owner, state, as_json(spec), broad, expert, reason, unix_s())
        self._write("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?)", *row)

    def visit(self, object_id: int, visit: int, kas: int, action: str, node: str, data_node: str, detail: Any) -> None:
        """What became of one visit of an object; a later word on the same visit replaces it."""
        row = (str(object_id), visit, kas, action, node, data_node, as_json(detail), unix_s())
        self._write("INSERT OR REPLACE INTO visits VALUES (?,?,?,?,?,?,?,?)", *row)

    def decision(
        self, object_id: int, visit: int, action: str, kas: int, handle: str, reason: str, ages: Any, plan: Any
    ) -> None:
        """One stop decided: where and why, on attributes of which ages (seconds), by which plan."""
        row = (str(object_id), visit, action, kas, handle, reason, as_json(ages), as_json(plan), unix_s())
        self._write("INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?,?)", *row)

    def freshness(self, detail: dict[str, Any]) -> None:
        """How old and how dear what is known of a terminal is (``gathering.freshness_of``)."""
        row = (detail["name"], detail["kas"], as_json(detail), unix_s())
        self._write("INSERT OR REPLACE INTO freshness VALUES (?,?,?,?)", *row)

    def cut(self, object_id: int, kas: int, detail: Any) -> None:
        """The latest topology that was cut for a job in one K-AS (MS-DRRT)."""
        row = (str(object_id), kas, as_json(detail), unix_s())
        self._write("INSERT OR REPLACE INTO cuts VALUES (?,?,?,?)", *row)

    def trust(self, name: str, kas: int, trust: float, why: str) -> None:
        """Why a terminal's trust is what it is now."""
        self._write("INSERT INTO trust VALUES (?,?,?,?,?)", name, kas, trust, why, unix_s())

    def revoked(self, kas: int, word: str) -> None:
        """Who is revoked in a K-AS, as its control centre signed it; replaces what it said before."""
        self._write("INSERT OR REPLACE INTO revoked VALUES (?,?,?)", kas, word, unix_s())

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return a table's rows; ``ValueError`` for a table that is not ours."""
        if table not in TABLES:
            raise ValueError(f"no table {table}; there are {', '.join(TABLES)}")
        cursor = self.database.read(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def close(self) -> None:
        """Close the database; nothing can be written after."""
        self.database.close()


class Kept(dict[Key, Value]):
    """A mapping of at most ``most`` entries, by age of their first writing, with a copy in the file.

    A value that is changed in place is written down by assigning it again.
    """

    def __init__(self, database: Database, room: str, key: type[Key], value: type[Value], most: int) -> None:
        super().__init__()
        self._database, self._room, self._most = database, room, most
        pack = msgspec.msgpack.Encoder()
        self._key, self._value = pack.encode, pack.encode
        read_key, read_value = msgspec.msgpack.Decoder(key), msgspec.msgpack.Decoder(value)
        found = database.read("SELECT key, value FROM state WHERE room = ? ORDER BY rowid", (room,)).fetchall()
        for name, held in found:
            try:
                super().__setitem__(read_key.decode(name), read_value.decode(held))
            except msgspec.MsgspecError as error:
                database.warn(f"an entry of {room} in {database.path} cannot be read and is left out: {error}")
        database.mirrors.append(self)

    def rewrite(self) -> None:
        """Write all of it anew."""
        self._database.write("DELETE FROM state WHERE room = ?", (self._room,))
        for key, value in self.items():
            self._put(key, value)

    def _put(self, key: Key, value: Value) -> None:
        row = (self._room, self._key(key), self._value(value))
        self._database.write("INSERT OR REPLACE INTO state VALUES (?,?,?)", row)

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self._put(key, value)
        while len(self) > self._most:
            del self[next(iter(self))]

    def __delitem__(self, key: Key) -> None:
        super().__delitem__(key)
        self._database.write("DELETE FROM state WHERE room = ? AND key = ?", (self._room, self._key(key)))

    @overload
    def pop(self, key: Key, /) -> Value: ...

    @overload
    def pop(self, key: Key, default: Other, /) -> Value | Other: ...

    def pop(self, key: Key, *default: Any) -> Any:
        """Take an entry out."""
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return an entry, written down first where there was none."""
        if key not in self:
            self[key] = default
        return self[key]
