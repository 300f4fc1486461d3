"""A port of a smaller MTU on the way, as tunnels have: the object goes on in smaller packets, and a warning says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.network.daitn import assert_as_before, daitn, standing


def test_gateways_of_a_smaller_mtu_carry_a_job_all_the_same_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    before = standing()
    up = daitn(
        "up", "healthcare", "--seed", "1", "--no-page", "--run-dir", str(tmp_path / "run"), "--detach", cwd=tmp_path
    )
    assert up.status == 0, up
    ports = [path.name for path in Path("/sys/class/net").glob("k?g-eth*")]
    try:
        for mtu, warned in ((1400, True), (1500, False)):
            for port in ports:
                subprocess.run(["ip", "link", "set", port, "mtu", str(mtu)], check=True)
            said = daitn("submit", "--broad", "0.5", "--max-visits", "4", cwd=tmp_path)
            assert said.status == 0, said
            assert "targets met" in said.out
            assert ("smaller MTU; it goes on in packets of 1280" in said.out) is warned
    finally:
        down = daitn("down", cwd=tmp_path)
    assert down.status == 0, down
    assert_as_before(before)
