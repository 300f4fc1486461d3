"""What root would be told to do, and what calibration makes of what it sees: no root needed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from topologies.errors import UnsupportedLinkError
from topologies.fig3 import PLAN
from topologies.machine.calibrate import judge, rate_mbps
from topologies.machine.frames import Arrival
from topologies.plan import LinkPlan
from topologies.wiring import (
    FRAME_BYTES,
    alias,
    bridge_words,
    burst_bytes,
    group,
    host_lines,
    name_servers,
    needs_wire,
    shape_lines,
)

WAN = next(link for link in PLAN.links if link.delay_ms)
ACCESS = next(link for link in PLAN.links if link.a == "h11")


def test_netem_shapes_where_the_kernel_has_it() -> None:
    lines = [line for line, _ in shape_lines(WAN, "k1g-eth3", netem=True)]
    assert lines[1].startswith(
        "class replace dev k1g-eth3 parent 1: classid 1:1 htb rate 50000kbit ceil 50000kbit burst 16000b"
    )
    assert lines[2] == "qdisc replace dev k1g-eth3 parent 1:1 handle 10: netem limit 247 delay 10000us"


def test_without_netem_the_shaper_only_limits_the_rate() -> None:
    lines = [line for line, _ in shape_lines(WAN, "k1g-eth3", netem=False)]
    assert lines[2].endswith("pfifo limit 206")
    assert not any("netem" in line for line in lines)


def test_loss_goes_to_netem() -> None:
    lossy = LinkPlan(a="k1g", a_port=3, b="k2g", b_port=3, rate_mbps=50, loss_percent=1.5)
    assert shape_lines(lossy, "x", netem=True)[2][0].endswith("delay 0us loss 1.5%")


@pytest.mark.parametrize(
    ("link", "netem", "expected"), [(WAN, False, True), (WAN, True, False), (ACCESS, False, False)]
)
def test_the_wire_filter_is_used_only_where_needed(link: LinkPlan, netem: bool, expected: bool) -> None:
    assert needs_wire(link, netem, has_wirefilter=True) is expected


def test_what_nothing_can_do_is_an_error_naming_link_and_setting() -> None:
    with pytest.raises(UnsupportedLinkError, match=r"link k1g-k2g: delay 10 ms.*wirefilter is missing"):
        needs_wire(WAN, has_netem=False, has_wirefilter=False)
    fast = LinkPlan(a="k1g", a_port=3, b="k2g", b_port=3, rate_mbps=1000, delay_ms=5)
    with pytest.raises(UnsupportedLinkError, match=r"k1g-k2g: delay 5 ms.*1000 Mbit/s"):
        needs_wire(fast, has_netem=False, has_wirefilter=True)
    assert needs_wire(fast, has_netem=True, has_wirefilter=True) is False


def test_a_host_needs_one_route_to_everything() -> None:
    lines = [line for line, _ in host_lines(PLAN.hosts[0])]
    assert "addr add 10.1.1.1/16 dev h11-eth0" in lines
    assert "route add default via 10.1.255.254 dev h11-eth0" in lines


def test_a_switch_is_fail_secure_and_marked() -> None:
    words = bridge_words(PLAN.switches[0], {"k1s1-eth1": 1}, "run7", "user", ["tcp:127.0.0.1:6653"])
    assert {"fail_mode=secure", "protocols=OpenFlow13", "datapath_type=netdev"} <= set(words)
    assert {"max_backoff=1000", "ofport_request=1", "other-config:datapath-id=0000000000000101"} <= set(words)
    assert words.count("external-ids:daitn-run=run7") == 3, "bridge, controller and interface"
    kernel = bridge_words(PLAN.switches[0], {}, "run7", "kernel", [])
    assert "datapath_type=system" in kernel


def test_two_runs_mark_differently() -> None:
    assert alias("a") != alias("b")
    assert group("a") != group("b")


@dataclass
class Way:
    mbps: float
    delay_ms: float
    loss: float = 0.0


@pytest.mark.parametrize(
    ("there", "back", "ok"),
    [
        (Way(50, 10), Way(49, 10.2), True),
        (Way(43, 11.4), Way(57, 10), True),
        (Way(50, 10), Way(42, 10), False),
        (Way(50, 10), Way(58, 10), False),
        (Way(50, 10), Way(50, 11.6), False),
        (Way(50, 0.1), Way(50, 10), False),
        (Way(50, -1), Way(0, -1), False),
    ],
)
def test_a_link_is_ok_when_both_ways_are_within_15_percent(there: Way, back: Way, ok: bool) -> None:
    assert judge(WAN, there, back).ok is ok


def test_the_worse_direction_is_reported() -> None:
    result = judge(WAN, Way(50, 10), Way(30, 14))
    assert (result.measured_mbps, result.measured_delay_ms, result.directions_mbps) == (30, 14, (50, 30))


def arrivals(mbps: float, count: int, burst: int) -> list[Arrival]:
    """What a shaper lets through: ``burst`` frames at once, then one every frame time."""
    gap_ns = int(FRAME_BYTES * 8e3 / mbps)
    return [Arrival(i, 0, 1000 + max(0, i - burst) * gap_ns) for i in range(count)]


@pytest.mark.parametrize("mbps", [10.0, 100.0, 200.0])
def test_the_rate_is_measured_behind_the_burst(mbps: float) -> None:
    burst = burst_bytes(mbps) // FRAME_BYTES
    train = arrivals(mbps, 200, burst)
    assert rate_mbps(train, 2 * burst) == pytest.approx(mbps, rel=0.001)
    assert rate_mbps(train, 0) > 1.05 * mbps, "the burst would have flattered the link"


def test_lost_and_reordered_frames_do_not_change_the_rate() -> None:
    train = arrivals(100.0, 200, 0)
    train[50], train[51] = train[51], train[50]
    assert rate_mbps([a for a in train if a.sequence % 7], 0) == pytest.approx(100.0, rel=0.02)


def test_no_rate_without_frames() -> None:
    assert rate_mbps([], 0) == 0.0
    assert rate_mbps(arrivals(100.0, 1, 0), 0) == 0.0


def test_a_terminal_is_told_at_once_that_name_servers_are_elsewhere() -> None:
    named = [f"nameserver {a}" for a in ("127.0.0.53", "10.255.255.53", "10.255.255.53", "::1")]
    lines = ["# nameserver 9.9.9.9", *named, "search x"]
    text = "\n".join(lines)
    assert name_servers(text) == ["10.255.255.53"]
    lines = [line for line, _ in host_lines(PLAN.hosts[0], ["10.255.255.53"])]
    assert lines[-1] == "route add unreachable 10.255.255.53"
