"""Results on a disk that runs full in mid-run: said within seconds, everything down, what there is stays."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.network.daitn import assert_as_before, daitn, standing


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_runs_full_ends_the_run_in_seconds(small: Path) -> None:
    before, full_s = standing(), []

    def fill() -> None:
        wait_until((small / "run" / "events.jsonl").exists, 60)
        wait_until(lambda: b"visit" in (small / "run" / "events.jsonl").read_bytes(), 60)
        with pytest.raises(OSError), (small / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        full_s.append(time.monotonic())

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    said = daitn("run", "healthcare", "--seed", "1", "--no-page", "--run-dir", str(small / "run"), cwd=small)
    assert said.status == 1, said
    assert "disk full: nothing more can be written to" in said.err
    assert time.monotonic() - full_s[0] < 30
    assert (small / "run" / "events.jsonl").stat().st_size > 1000
    assert_as_before(before)
    again = daitn("run", "healthcare", "--seed", "1", "--no-page", "--run-dir", str(small / "more"), cwd=small)
    assert again.status == 2 and "disk full" in again.err
    assert not (small / "more").exists()
