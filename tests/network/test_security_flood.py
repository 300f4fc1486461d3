"""Bad packets by the thousand beside a live transfer on a real network: each refused and counted, nothing gives way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import flood, flood_guard
from packets.kbgp.messages import PORT as BORDER_PORT

pytestmark = pytest.mark.alone  # goodput beside a flood of 10,000 packets a second

TRIES = 3
REASONS = {"short", "length", "header-checksum", "mac", "signature", "replayed", "expired", "unsigned", "owner"}


@pytest.fixture(scope="module")
def scene() -> Iterator[flood.Scene]:
    with flood.standing() as standing:
        yield standing


@pytest.fixture
def open_scene(scene: flood.Scene) -> flood.Scene:
    """The worst case: switches that do not hold terminals to their own addresses."""
    flood.begin(scene)
    return scene


@pytest.fixture
def guarded(scene: flood.Scene) -> flood.Scene:
    """The usual case: they do."""
    flood_guard.begin(scene)
    return scene


def test_a_flood_is_refused_and_counted_and_the_transfer_goes_on(open_scene: flood.Scene) -> None:
    """Quiet and attacked transfers in turn, in the same run; a busy machine gets another chance."""
    results = []
    for _ in range(TRIES):
        results.append(flood.measure(open_scene, 2, size=16_000_000))
        if results[-1]["goodput_lost"] < flood.LIMIT:
            break
    last = results[-1]
    assert last["goodput_lost"] < flood.LIMIT, results
    assert last["flood_pps"] > 0.9 * flood.RATE_PPS
    assert last["same_processes"] and last["objects_arrived"] == 6
    assert last["refused"].keys() >= REASONS, last["refused"]
    assert abs(last["unaccounted"]) <= 0.001 * last["sent_to_receiver"], last
    assert all(last["other_launch_s"]), "and others still reach the receiver"
    assert last["requests_answered"] == 1.0, "the control centre answers others as ever"


def test_forged_launches_to_a_label_stop_at_meter_and_gate(open_scene: flood.Scene) -> None:
    before = open_scene.told.total()
    result = flood.measure(open_scene, 1, size=2_000_000)
    label = result["label"]
    assert label["sent"] > 100 and open_scene.told.total() > before
    assert label["refused"].keys() <= {"owner", "throttled", "packet-in rate"}


def test_a_port_that_floods_and_forges_is_stopped_at_its_switch_and_counted(guarded: flood.Scene) -> None:
    """Packet-ins, spoofed sources, ARP poisoning, all from one port; a bystander's packet-ins and transfer go on."""
    last = {}
    for _ in range(TRIES):
        last = flood_guard.measure(guarded, seconds=5.0, size=8_000_000, quiet=1)
        if last["holds"]:
            break
    assert last["goodput_ratio"] >= flood_guard.LEAST, last
    assert last["packet_in_pps"] > 0.9 * flood_guard.UP_PPS
    assert last["all_counted"] and last["poisoned"] == 0, last
    assert last["dropped_by_meter"] > 0.8 * last["sent_up"], "the switch itself stops most of what would go up"
    assert last["bystander_answered"] == 1.0


def test_the_control_centre_is_out_of_reach_of_terminals(guarded: flood.Scene) -> None:
    """Its OpenFlow port is on the loopback of another namespace; its gateway answers ping and nothing else."""
    before = guarded.dropped["control-address"]
    assert "refused" in guarded.net["a"].cmd(f"bash -c '</dev/tcp/127.0.0.1/{flood.OPENFLOW_PORT}' 2>&1")
    assert "1 received" in guarded.net["a"].cmd("ping -c1 -W1 -q 10.1.255.254")
    for target in ("10.1.255.254", guarded.speaker(1), guarded.speaker(2)):
        tried = guarded.net["a"].cmd(f"timeout 0.3 bash -c '</dev/tcp/{target}/{BORDER_PORT}' 2>&1; echo $?")
        assert "124" in tried, tried
    guarded.wait(lambda: guarded.dropped["control-address"] - before >= 3, "the drops are counted")
