"""Networks come and go, also when something is in the way, and leave no trace."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.network.topologies_support import new_network, output, traces
from topologies import fig3, single, wiring
from topologies.build import Terminal, Wan, build_plan
from topologies.changes import change_link
from topologies.errors import NameTakenError, RefusedError, RunLiveError
from topologies.machine import netns, sending
from topologies.machine.calibrate import calibrate
from topologies.machine.ledger import RUN_BASE
from topologies.machine.preflight import RunLock
from topologies.machine.selftest import check_udp
from topologies.network import Network
from topologies.plan import LinkPlan, NetworkPlan

PORT = 9903


def learn_by_hand(plan: NetworkPlan) -> None:
    """Give the switches static routes and the hosts the router's MAC, in place of a controller."""
    far = {(x.a, x.b): (x.a_port, x.b_port) for x in plan.links if x.a_port}
    trunk = {"k1s1": far["k1s1", "k1g"][0], "k1g": far["k1s1", "k1g"][1]}
    for switch in plan.switches:
        for host in plan.hosts:
            port = host.port if host.switch == switch.name else trunk[switch.name]
            rule = f"ip,nw_dst={host.address},actions=mod_dl_dst:{host.mac},output:{port}"
            output("ovs-ofctl", "-O", "OpenFlow13", "add-flow", switch.name, rule)


@pytest.fixture
def small() -> Iterator[Network]:
    """The standing network of six terminals, with static routes."""
    with new_network(single.PLAN, "single") as network:
        learn_by_hand(single.PLAN)
        for source in single.PLAN.hosts:
            known = [f"ip neigh replace {x.address} lladdr {x.mac} dev {source.name}-eth0" for x in single.PLAN.hosts]
            network[source.name].cmd("; ".join(known))
        yield network


class TestTraffic:
    """UDP through the fabric, and the trap of checksum offload."""

    def test_udp_and_ping_arrive_across_two_switches(self, small: Network) -> None:
        assert check_udp(small.hosts["h11"], small.hosts["owner1"]) < 3
        assert small.ping([small["h12"], small["mdfp1"]], timeout="2") == 0

    def test_the_self_test_notices_offloaded_checksums(self, small: Network) -> None:
        if small.session is None or small.session.datapath != "user":
            pytest.skip("the kernel datapath computes checksums itself")
        small["h11"].cmd("ethtool -K h11-eth0 tx on")
        try:
            with pytest.raises(RefusedError, match="ethtool -k h11-eth0"):
                check_udp(small.hosts["h11"], small.hosts["h12"], timeout_s=1)
        finally:
            netns.inside(small["h11"].pid, lambda: netns.checksum_in_software("h11-eth0"))
        assert check_udp(small.hosts["h11"], small.hosts["h12"]) < 3

    @pytest.mark.skipif(sending.complaint() != "", reason="this Open vSwitch has sent before, with a small buffer")
    def test_a_full_link_takes_no_packets_from_others(self, small: Network) -> None:
        full = next(x for x in small.plan.links if "mpvu1" in (x.a, x.b))
        change_link(small, full.name, rate_mbps=5.0, queue_packets=1000)
        over = threading.Event()

        def flood() -> None:
            with datagrams(small, "h11") as out:
                while not over.wait(0.001):
                    for _ in range(8):  # 96 Mbit/s into 5
                        out.sendto(bytes(1472), (address["mpvu1"], 9))

        address = {h.name: h.address for h in small.plan.hosts}
        thread = threading.Thread(target=flood)
        with datagrams(small, "h12") as out, datagrams(small, "c1") as into:
            into.bind((address["c1"], PORT))
            into.settimeout(2.0)
            thread.start()
            try:
                time.sleep(1.0)
                came = 0
                for _ in range(300):
                    out.sendto(b"steady", (address["c1"], PORT))
                    time.sleep(0.002)
                with contextlib.suppress(TimeoutError):
                    while came < 300:
                        into.recv(64)
                        came += 1
            finally:
                over.set()
                thread.join(5.0)
        assert came == 300
        queue = output("tc", "-s", "qdisc", "show", "dev", f"{full.b}-eth{full.b_port}").split("pfifo")[1]
        assert "dropped 0," not in queue, "the link was not full"


def datagrams(network: Network, name: str) -> socket.socket:
    """Return a UDP socket in a terminal."""
    return netns.inside(network[name].pid, lambda: socket.socket(type=socket.SOCK_DGRAM))


class TestComingAndGoing:
    """Up and down, also when something is in the way."""

    def test_it_goes_without_a_trace_and_comes_again(self) -> None:
        before = traces()
        for _ in range(2):
            with new_network(fig3.PLAN) as network:
                assert len(network.hosts) == 26, "22 terminals, 4 border speakers"
                assert traces() != before
            wait_until(lambda: traces() == before, 5, "as before")

    def test_stop_is_safe_at_any_time(self) -> None:
        network = new_network(single.PLAN)
        network.stop()
        network.start()
        network.stop()
        network.stop()

    def test_a_name_in_use_is_an_error_and_stays(self) -> None:
        subprocess.run(["ip", "link", "add", "k1s1-eth1", "type", "veth", "peer", "name", "veth-theirs"], check=True)
        try:
            before = traces()
            with pytest.raises(NameTakenError, match="interface k1s1-eth1"):
                new_network(single.PLAN).start()
            assert traces() == before
        finally:
            subprocess.run(["ip", "link", "del", "k1s1-eth1"], check=True)

    def test_another_live_run_is_an_error(self) -> None:
        with RunLock("somebody"):
            before = traces()
            with pytest.raises(RunLiveError, match="run somebody"):
                new_network(single.PLAN).start()
            assert traces() == before

    def test_a_refused_setting_names_the_link_and_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good = wiring.shape_lines

        def bad(link: LinkPlan, device: str, netem: bool) -> list[wiring.Line]:
            lines = good(link, device, netem)
            return [("qdisc add dev k1s1-eth1 root nosuchqdisc", lines[0][1])] if device == "k1s1-eth1" else lines

        monkeypatch.setattr(wiring, "shape_lines", bad)
        before = traces()
        with pytest.raises(RefusedError, match=r"link k1s1-k1g.*k1s1-eth1.*nosuchqdisc"):
            new_network(single.PLAN).start()
        wait_until(lambda: traces() == before, 5, "as before")

    def test_a_terminal_may_have_a_delay_too(self) -> None:
        plan = build_plan("slow", kas={1: [Terminal("h11", delay_ms=10), "h12"]}, access_switches=1)
        with new_network(plan) as network:
            (result,) = calibrate(network, [x for x in plan.links if x.a == "h11"])
            assert result.ok, result
            assert network["h11"].cmd("ip -br addr show dev h11-eth0").count("10.1.1.1/16") == 1

    def test_loss_is_really_lost(self) -> None:
        plan = build_plan(
            "lossy", kas={1: ["h1"], 2: ["h2"]}, wan=[Wan(1, 2, delay_ms=2, loss_percent=20)], access_switches=1
        )
        with new_network(plan) as network:
            link = next(x for x in plan.links if x.loss_percent)
            (result,) = calibrate(network, [link])
            assert 8 <= result.measured_loss_percent <= 35


def test_a_script_that_ends_without_stop_leaves_nothing() -> None:
    before = traces()
    run_id = f"script-{os.getpid()}"
    code = (
        "from topologies.network import Network; from topologies.single import PLAN\n"
        f"Network(PLAN, {run_id!r}, {{}}, {str(RUN_BASE / run_id)!r}).start()\n"
        "raise SystemExit(3)"
    )
    root = Path(fig3.__file__).parent.parent
    python = root / ".venv" / "bin" / "python"
    assert subprocess.run([str(python), "-c", code], cwd=root, timeout=60).returncode == 3
    wait_until(lambda: traces() == before, 5, "as before")
