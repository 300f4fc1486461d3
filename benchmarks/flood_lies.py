"""The third part of the flood benchmark: a terminal with keys that lies, as fast as it gets answers.

The same network.  The attacker is registered, signs all it says, and reports in another's name, or figures that cannot
be: NaN, infinity, 1e308, negative ones.  Meanwhile objects travel from ``a`` to ``c`` as before.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from typing import Any

from benchmarks.common import say
from benchmarks.flood_guard import COUNTED_S, LEAST, Scene

TRANSFERS = 3


def measure(scene: Scene, dcc: str, *, size: int, transfers: int = TRANSFERS) -> dict[str, Any]:
    """Transfers alone and beside the liar, in turn; return the figures."""
    scene.run("x", "benchmarks.flood_end", scene.address["x"], dcc)
    scene.ask("x", "ask 1")  # it registers
    refused = Counter(scene.told)
    alone, beside = list[float](), list[float]()
    sent, taken, seconds = Counter[str](), Counter[str](), 0.0
    for _ in range(transfers):
        alone.append(scene.transfer(None, size)["goodput_mbps"])
        begun = time.monotonic()
        scene.tell("x", f"lie {size * 8 / 50e6 + 1.0:.1f} a")
        beside.append(scene.transfer(None, size)["goodput_mbps"])
        told = scene.hear("x")
        seconds += min(told["seconds"], time.monotonic() - begun)
        sent.update(told["refused"])
        sent.update(told["taken"])
        taken.update(told["taken"])
    time.sleep(COUNTED_S)
    ratio = statistics.median(beside) / statistics.median(alone)
    counted = scene.told - refused
    lies = sum(sent.values())
    rates = f"{statistics.median(alone):.1f} Mbit/s alone, {statistics.median(beside):.1f} beside a liar"
    say(f"{rates}: {json.dumps(counted)}")
    return {
        "lies": dict(sent), "lies_per_s": round(lies / seconds), "taken": dict(taken), "counted": dict(counted),
        "goodput_alone_mbps": round(statistics.median(alone), 2),
        "goodput_beside_mbps": round(statistics.median(beside), 2), "goodput_ratio": round(ratio, 4),
        "holds": ratio >= LEAST and not taken and sum(counted.values()) >= 0.99 * lies,
    }  # fmt: skip
