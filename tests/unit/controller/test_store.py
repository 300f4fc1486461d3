"""What a control centre has written down outlives it, whatever happens to the process, the file or the disk."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import store as stores
from controller.runtime import database
from controller.runtime.database import Database
from controller.store import Kept, Store
from controller.tools.location import Arrival

RUN = "r1"
Write = tuple[int, int | None]  # a key, and its value (None: it goes)
WRITES = st.lists(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 99)), min_size=1, max_size=4))


def write(kept: Kept[int, int], writes: list[Write]) -> None:
    for key, value in writes:
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def beheld(folder: Path) -> tuple[dict[int, int], list[str], bool]:
    """Return what the next life finds, what it says of the file, and whether it takes it for its own."""
    said: list[str] = []
    store = Store(folder / "dcc.sqlite", RUN, said.append)
    try:
        return dict(store.kept("things", int, int)), said, store.again
    finally:
        store.close()


@settings(max_examples=60, deadline=None)
@given(together=WRITES, cut=st.floats(0.0, 1.0))
def test_any_prefix_of_the_log_is_a_state_that_was(together: list[list[Write]], cut: float) -> None:
    """The log is cut anywhere, as by a machine that lost power: what is found is what some commit left, whole."""
    with TemporaryDirectory() as name:
        folder, states = Path(name), [dict[int, int]()]
        store = Store(folder / "dcc.sqlite", RUN)
        kept = store.kept("things", int, int)
        store.database._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for writes in together:
            with store.together():
                write(kept, writes)
            states.append(dict(kept))
        (folder / "cut").mkdir()
        for tail in ("", "-wal"):
            shutil.copy(folder / f"dcc.sqlite{tail}", folder / "cut" / f"dcc.sqlite{tail}")
        store.close()
        log = folder / "cut" / "dcc.sqlite-wal"
        with log.open("rb+") as file:
            file.truncate(int(cut * log.stat().st_size))
        found, said, again = beheld(folder / "cut")
        assert found in states and again and not said
        if cut == 1.0:
            assert found == states[-1], "what was committed is there"


@settings(max_examples=40, deadline=None)
@given(at=st.floats(0.0, 0.999), size=st.integers(1, 4000), how=st.sampled_from(["cut", "noise"]))
def test_a_damaged_file_is_set_aside_or_read_and_never_the_end(at: float, size: int, how: str) -> None:
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "dcc.sqlite"
        store = Store(file, RUN)
        write(store.kept("things", int, int), [(i, i) for i in range(400)])
        store.close()
        with file.open("rb+") as raw:
            raw.seek(int(at * file.stat().st_size))
            raw.truncate() if how == "cut" else raw.write(b"\xa5" * size)
        found, said, _ = beheld(folder)
        assert all(found[k] == k for k in found) or said
        aside = list(folder.glob("dcc.sqlite.damaged-*"))
        assert len(aside) <= 1
        if aside:
            assert not found and "set aside" in said[0] and aside[0].name in said[0]
        assert beheld(folder)[0] == found, "the life after that has no trouble"


def test_what_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "dcc.sqlite").write_bytes(b"not a database at all " * 500)
    found, said, again = beheld(tmp_path)
    assert found == {} and not again and "is damaged" in said[0]


def test_a_disk_that_is_full_is_told_of_once_and_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.runtime.database.RETRY_S", 0.0)
    said: list[str] = []
    store = Store(tmp_path / "dcc.sqlite", RUN, said.append)
    kept = store.kept("things", int, str)
    limit = "PRAGMA max_page_count={}".format
    pages = store.database.read("PRAGMA page_count").fetchone()[0]
    store.database.read(limit(pages))
    for number in range(200):
        kept[number] = "x" * 400
    assert [("full" in text) for text in said] == [True]
    assert store.database.failing
    store.upkeep()
    assert len(said) == 1, "still full"
    kept[7] = "later"
    store.database.read(limit(100_000))
    store.upkeep()
    assert "is written again" in said[1]
    store.close()
    again = Store(tmp_path / "dcc.sqlite", RUN)
    assert dict(again.kept("things", int, str)) == dict(kept) and len(kept) == 200
    again.close()


def test_what_is_written_is_there_before_it_is_told(tmp_path: Path) -> None:
    """Another connection reads, at the very moment of the event: what it sees is what a kill then would leave."""
    seen: list[Any] = []

    def emit(kind: str, /, **data: Any) -> None:
        with sqlite3.connect(tmp_path / "dcc.sqlite") as other:
            seen.append(other.execute("SELECT count(*) FROM state WHERE room = 'things'").fetchone()[0])

    async def work() -> None:
        store = Store(tmp_path / "dcc.sqlite", RUN)
        tell, kept = store.audited(emit), store.kept("things", int, int)
        kept[1] = 1
        assert not seen
        tell("terminal.joined", name="h11", kas=1)
        assert seen == [1]
        (row,) = store.rows("audit")
        assert (row["what"], row["who"]) == ("terminal.joined", "h11")
        store.close()

    asyncio.run(work())


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "ROWS_KEPT", 10)
    store = Store(tmp_path / "dcc.sqlite", RUN)
    for number in range(30):
        store.audit("job.submitted", "owner1", number, {})
    store.upkeep()
    assert [row["object_id"] for row in store.rows("audit")] == [str(n) for n in range(20, 30)]
    kept = store.kept("few", int, int, 3)
    for number in range(9):
        kept[number] = number
    assert list(kept) == list(store.kept("few", int, int, 3)) == [6, 7, 8]
    store.close()


def test_an_epoch_is_larger_than_the_last_whatever_the_clock_says(tmp_path: Path) -> None:
    epochs = []
    for now in (1000, 2000, 500, 500):  # the clock was set back
        store = Store(tmp_path / "dcc.sqlite", RUN)
        epochs.append(store.epoch(now))
        store.close()
    assert epochs == [1000, 2000, 2001, 2002]


def test_a_value_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    database = Database(tmp_path / "d", stores.SCHEMA, said.append)
    Kept(database, "arrivals", int, str, 9)[1] = "no arrival"
    assert Kept(database, "arrivals", int, Arrival, 9) == {}
    assert "arrivals" in said[0] and "left out" in said[0]
    database.close()


def test_a_closed_file_stands_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is in it, and gone: whoever copies the one file of a run that has ended has all of it."""
    began, real = threading.Event(), sqlite3.connect

    class Slow(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if "wal_checkpoint" in sql:
                began.set()
                time.sleep(0.1)
            return cursor

    monkeypatch.setattr(database, "FLUSH_S", 0.01)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: real(*args, factory=Slow, **how))
    store = Store(tmp_path / "a.sqlite", RUN)
    store.trust("h1", 1, 0.5, "why")
    assert began.wait(5.0)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]
