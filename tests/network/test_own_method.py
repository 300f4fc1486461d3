"""A training method of one's own that breaks, on the emulated network."""

from __future__ import annotations

import json
from pathlib import Path

from tests.network.daitn import daitn


def test_a_method_of_ones_own_that_fails_is_told_of_and_the_model_comes_home(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from hosts.learning.methods.own import OwnMethod\n"
        "class Bad(OwnMethod):\n"
        "    def combine(self, state, updates):\n"
        "        return {n: t / 0 for n, t in state.items()}\n"
    )
    words = [
        "run",
        "digits",
        "--method",
        "bad.py:Bad",
        "--seed",
        "1",
        "--run-dir",
        "result",
        "--no-page",
        "--no-capture",
    ]
    said = daitn(*words, cwd=tmp_path, timeout_s=180)
    assert said.out.count("method Bad: combine left layers.0") >= 4 and "Traceback" not in said.out + said.err, said
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert report["seeds"][0]["reason"] == "no compute facility of 4 is ready to lead a group"
