"""A declared network on the real kernel and Open vSwitch: what stands is what was declared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.network.topologies_support import new_network, output, traces
from topologies import fig3, single, wiring
from topologies.errors import NameTakenError
from topologies.machine.calibrate import calibrate
from topologies.machine.frames import End
from topologies.network import Network
from topologies.plan import LinkPlan

pytestmark = pytest.mark.alone  # rates and delays are measured


def set_rate(link: LinkPlan, device: str) -> None:
    """Shape a port as this link declares."""
    line, _ = wiring.shape_lines(link, device, netem=False)[1]
    output("tc", *line.split())


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """The standing fig3 network, without controllers."""
    with new_network(fig3.PLAN, "fig3") as network:
        yield network


def test_hosts_have_their_addresses_and_one_route(net: Network) -> None:
    for host in fig3.PLAN.hosts:
        node = net.hosts[host.name]
        assert (node.IP(), node.MAC()) == (host.address, host.mac)
        lines = node.cmd("ip -br addr show dev", f"{host.name}-eth0", "; ip route show default")
        assert f"{host.address}/16" in lines
        assert f"via 10.{host.kas}.255.254" in lines


def test_hosts_are_quiet_and_compute_checksums_themselves(net: Network) -> None:
    text = net["h11"].cmd("cat /proc/sys/net/ipv6/conf/h11-eth0/disable_ipv6; ethtool -k h11-eth0")
    assert text.startswith("1")
    assert "tx-checksumming: off" in text


def test_switches_have_declared_numbers_and_stay_dark_without_a_controller(net: Network) -> None:
    for switch in fig3.PLAN.switches:
        text = output("ovs-ofctl", "-O", "OpenFlow13", "show", switch.name)
        assert f"dpid:{switch.dpid:016x}" in text
        for link in fig3.PLAN.links:
            for node, port in ((link.a, link.a_port), (link.b, link.b_port)):
                assert node != switch.name or f" {port}({node}-eth{port})" in text
        assert output("ovs-vsctl", "get-fail-mode", switch.name).strip() == "secure"
        assert output("ovs-vsctl", "get", "bridge", switch.name, "external_ids:daitn-run").strip('"\n') == net.run_id


def test_nothing_listens_for_the_world(net: Network) -> None:
    listening = [line for line in output("ss", "-Hltn").splitlines() if "0.0.0.0:66" in line or "*:66" in line]
    assert listening == []


def test_every_link_is_within_15_percent_of_its_declaration(net: Network) -> None:
    results = calibrate(net)
    assert [r.link for r in results] == [link.name for link in fig3.PLAN.links]
    assert [r for r in results if not r.ok] == []


def test_a_wrong_rate_is_noticed(net: Network) -> None:
    link = next(x for x in fig3.PLAN.links if x.a == "h12")
    wrong = LinkPlan(a=link.a, a_port=0, b=link.b, b_port=link.b_port, rate_mbps=70)
    device = wiring.ends(link)[1]
    try:
        set_rate(wrong, device)
        (result,) = calibrate(net, [link])
        assert not result.ok
        assert result.measured_mbps == pytest.approx(70, rel=0.15)
        assert result.directions_mbps[0] == pytest.approx(100, rel=0.15)
    finally:
        set_rate(link, device)
    assert calibrate(net, [link])[0].ok


def test_a_wrong_delay_is_noticed(net: Network) -> None:
    link = next(x for x in fig3.PLAN.links if x.name == "k1g-k2g")
    (result,) = calibrate(
        net, [LinkPlan(a="k1g", a_port=link.a_port, b="k2g", b_port=link.b_port, rate_mbps=50, delay_ms=5)]
    )
    assert not result.ok
    assert result.measured_delay_ms == pytest.approx(10, abs=3)


def test_a_wide_area_link_busy_both_ways_loses_and_mangles_nothing(net: Network) -> None:
    """One wire filter for both ways would: it mixes the fragments of its two streams."""
    link = next(x for x in fig3.PLAN.links if x.name == "k2g-k3g")
    a, b = (End(name, None) for name in wiring.ends(link))
    count = 150
    try:
        for _ in range(8):
            for end in (a, b):
                end.send(0, count)
            for end in (a, b):
                assert sorted(x.sequence for x in end.collect(count, 2.0)) == list(range(count))
    finally:
        a.close()
        b.close()


def test_shaping_survives_changes_elsewhere_in_open_vswitch(net: Network) -> None:
    before = output("tc", "class", "show", "dev", "k1g-eth3")
    output("ovs-vsctl", "add-br", "daitnother", "--", "set", "bridge", "daitnother", "datapath_type=netdev")
    output("ovs-vsctl", "del-br", "daitnother")
    assert "rate 50Mbit" in before
    assert output("tc", "class", "show", "dev", "k1g-eth3") == before


def test_a_second_network_is_refused_before_anything_is_made(net: Network) -> None:
    before = traces()
    with pytest.raises(NameTakenError, match="exists already"):
        new_network(single.PLAN, "second").start()
    assert traces() == before
