"""A disk that is full, or runs full, is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.errors import ExperimentError, RunFailed
from experiments.testbed import disk


def test_what_is_left_is_looked_at_before_and_during_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk.left_mib(tmp_path) > 0
    for left, before, now in ((100.0, True, True), (20.0, False, True), (0.5, False, False)):
        monkeypatch.setattr(disk, "left_mib", lambda _, left=left: left)
        for check, fine, error in ((disk.check_before, before, ExperimentError), (disk.check_now, now, RunFailed)):
            if fine:
                check(tmp_path)
            else:
                with pytest.raises(error, match=f"disk full: .*{tmp_path}.* --run-dir"):
                    check(tmp_path)
