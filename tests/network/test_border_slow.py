"""What control centres say to each other takes as long as the WAN between them."""

from __future__ import annotations

from pathlib import Path

from benchmarks import border
from benchmarks.standing import StandingNetwork, standing

SLOW_MS = 100.0


def test_what_they_say_crosses_the_wan_in_time_and_bytes(tmp_path: Path) -> None:
    slow = border.SCENARIO.replace("delay_ms: 10", f"delay_ms: {SLOW_MS:g}")
    (tmp_path / "slow.yaml").write_text(slow)
    with standing(tmp_path / "slow.yaml", tmp_path) as network:
        assert first_ms(network) > 2 * SLOW_MS, "a question and its answer cross at least one link each"


def first_ms(network: StandingNetwork) -> float:
    """Return how long the first packet of an object to another K-AS waits for its way."""
    parcel = border.Parcel(network, "owner1", 1000, "mpvu")
    parcel.kept()
    return float(parcel.said("object.released").data["waited_ms"])
