"""One SQLite file with one writer: written in the loop, flushed to the disk from a thread, never waited for.

What is written waits, in one transaction, for ``commit``: whoever lets anything out of the process calls it first, so
that nothing is said that a kill at the next moment would take back.  A process that is killed loses nothing committed
(SQLite's log is in the kernel's hands by then); a machine that loses power may lose its last seconds, and no more.

A file that is damaged is set aside under another name.  A disk that is full, or fails, is told of once: the mirrors
(``Mirror``) go on in memory, and are written down whole as soon as that works again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

FLUSH_S = 1.0
RETRY_S = 1.0
CLOSE_TIMEOUT_S = 2.0
MOST_LOG_BYTES = 64 << 20
Warn = Callable[[str], None]


class Mirror(Protocol):
    """State in memory of which the file has a copy."""

    def rewrite(self) -> None:
        """Write all of it."""


class Database:
    """The file at ``path`` (None: in memory) with the tables of ``schema``. ``warn`` hears in words what went wrong."""

    def __init__(self, path: Path | None, schema: str, warn: Warn = lambda text: None) -> None:
        self.path, self.warn, self._schema = path, warn, schema
        self.mirrors: list[Mirror] = []
        self.lost, self.damaged = 0, False
        self._behind_s: float | None = None
        self._pending = self._called = False
        self._over = threading.Event()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._opened()
        except sqlite3.DatabaseError as error:
            self._db = self._anew(error)
        self._flusher = threading.Thread(target=self._flush, name="database", daemon=True)
        if path is not None:
            self._flusher.start()

    # --- opening

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path or ":memory:", isolation_level=None, timeout=1.0)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA wal_autocheckpoint=0")  # what waits for the disk is the thread's
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.executescript(self._schema)
        except BaseException:
            db.close()
            raise
        return db

    def _anew(self, error: sqlite3.Error) -> sqlite3.Connection:
        """Set a damaged file aside, and begin with an empty one."""
        if self.path is None or _full(error):
            raise error
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns():x}")
        for tail in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + tail).rename(aside.with_name(aside.name + tail))
        self.damaged = True
        self.warn(f"database {self.path.name} is damaged ({error}): set aside as {aside.name}, a new one is begun")
        return self._opened()

    # --- writing

    def write(self, sql: str, row: Sequence[Any] = ()) -> None:
        """Write something with the next ``commit`` (which is soon, where a loop runs, else now)."""
        if self._behind_s is not None:
            self.lost += 1
            return
        try:
            if not self._pending:
                self._db.execute("BEGIN IMMEDIATE")
                self._pending = True
            self._db.execute(sql, row)
        except sqlite3.Error as error:
            self._failed(error)
        else:
            self._soon()

    def _soon(self) -> None:
        if self._called:
            return
        try:
            asyncio.get_running_loop().call_soon(self.commit)
        except RuntimeError:
            self.commit()
        else:
            self._called = True

    def commit(self) -> None:
        """Have all that was written outlive this process."""
        self._called = False
        if not self._pending:
            return
        try:
            self._db.execute("COMMIT")
            self._pending = False
        except sqlite3.Error as error:
            self._failed(error)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what follows whole, or none of it where an error comes."""
        self.commit()
        called, self._called = self._called, True  # no commit on the way
        try:
            yield
        except BaseException:
            if self._pending:
                self._db.execute("ROLLBACK")
                self._pending = False
            raise
        finally:
            self._called = called
        self.commit()

    def read(self, sql: str, row: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Return what the file has, with what waits to be committed."""
        return self._db.execute(sql, row)

    # --- when that fails

    @property
    def failing(self) -> bool:
        """Whether nothing can be written now."""
        return self._behind_s is not None

    def _failed(self, error: sqlite3.Error) -> None:
        self.lost += 1
        self._behind_s = time.monotonic()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        self._pending = False
        self.warn(f"nothing can be written down in {self.path}: {error}; going on by heart until it can")

    def retry(self) -> None:
        """Write down what could not be written (periodic): all state; history of the meantime is lost."""
        if self._behind_s is None or time.monotonic() - self._behind_s < RETRY_S:
            return
        try:
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("malformed")
        except sqlite3.DatabaseError as error:
            if not _full(error):
                self._db.close()
                self._db = self._anew(error)
        lost, self._behind_s, self.lost = self.lost, None, 0
        quiet, self.warn = self.warn, lambda text: None  # it has been told
        try:
            for mirror in self.mirrors:
                mirror.rewrite()
            self.commit()
        finally:
            self.warn = quiet
        if self.failing:
            self.lost += lost
        else:
            self.warn(f"{self.path} is written again; {lost} entries of history are missing, no state is")

    # --- the disk

    def shorten(self) -> None:
        """Empty a log that the thread cannot keep up with (periodic): here the loop waits for the disk."""
        if self.path is None or self._behind_s is not None:
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if self.path.with_name(self.path.name + "-wal").stat().st_size > MOST_LOG_BYTES:
                self.commit()
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _flush(self) -> None:
        """Bring the log into the file, off the loop: a disk that is slow to confirm holds nobody up."""
        assert self.path is not None
        db = None
        while not self._over.wait(FLUSH_S):
            try:
                db = db or sqlite3.connect(self.path, isolation_level=None, timeout=0.0)
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error:  # the writer has it, and tells
                if db is not None:
                    db.close()
                db = None
        if db is not None:
            db.close()

    def close(self) -> None:
        """Close the file, its log brought in where the disk takes that soon; nothing can be written after."""
        self.commit()
        self._over.set()
        if self._flusher.is_alive():
            self._flusher.join(CLOSE_TIMEOUT_S)
        self._db.close()  # the last one to close takes the log away


def _full(error: sqlite3.Error) -> bool:
    """Tell whether it is the disk that is at fault, not what is on it."""
    return isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error)
