"""Background traffic: read from a scenario, refused in one line, and what its log tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.errors import ScenarioError
from experiments.scenarios.scenario import Scenario, dump, load
from experiments.testbed.background import seconds_of

LOG = """-----------------------------------------------------------
Server listening on 5201 (test #1)
-----------------------------------------------------------
Accepted connection from 10.1.1.1, port 40000
[  5] local 10.4.3.1 port 5201 connected to 10.1.1.1 port 41000
[ ID] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams
[  5]   0.00-1.00   sec  2.38 MBytes  20.0 Mbits/sec  0.028 ms  0/1700 (0%)
[  5]   1.00-2.00   sec   512 KBytes  4.19 Mbits/sec  0.028 ms  0/1700 (0%)
[  5]   2.00-3.00   sec  0.00 Bytes  0.00 Mbits/sec  0.028 ms  0/0 (0%)
[  5]   0.00-3.00   sec  2.88 MBytes  8.06 Mbits/sec  0.028 ms  0/3400 (0%)  receiver
"""


def with_background(tmp_path: Path, text: str) -> Scenario:
    (tmp_path / "x.yaml").write_bytes(
        dump(load("healthcare")).replace(b"background: []", f"background: [{text}]".encode())
    )
    return load(str(tmp_path / "x.yaml"))


def test_pairs_are_read_and_written_by_the_names_of_the_file(tmp_path: Path) -> None:
    found = with_background(tmp_path, "{from: h11, to: h43, rate_mbps: 20}, {from: h12, to: h31, protocol: tcp}")
    assert [(p.sender, p.receiver, p.protocol) for p in found.background] == [
        ("h11", "h43", "udp"), ("h12", "h31", "tcp"),
    ]  # fmt: skip
    assert b"from: h11" in dump(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{from: h11, to: h4x, rate_mbps: 1}", "background names h4x, which is no host; .*did you mean"),
        ("{from: h11, to: h11, rate_mbps: 1}", "does not send to itself"),
        ("{from: h11, to: h43}", "UDP needs a rate_mbps"),
        ("{from: h11, to: h43, rate_mbps: -1}", "background"),
        ("{source: h11, to: h43}", "source"),
    ],
)
def test_what_is_no_pair_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told) as caught:
        with_background(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_the_receivers_log_gives_the_rate_of_each_second() -> None:
    assert seconds_of(LOG) == [20.0, 4.19, 0.0]
    assert seconds_of("iperf3: interrupt - the server has terminated") == []
