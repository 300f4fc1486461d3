"""Does the transport fill the wire, and leave others their share?  Ours against TCP on the same path in the same run.

    make bench-transport                             # everything, about half an hour
    make bench-transport KEYS=1                      # the same as in a run, with keys
    python -m benchmarks.transport --quick           # one repeat of each
    python -m benchmarks.transport --only unshaped   # one part: 10, 100, 500, unshaped, loss, jain

Goodput of a 64 MB object between two terminals of a Mininet network of ours (agents are processes in the terminals'
namespaces) against iperf3 TCP with CUBIC for the same bytes, over two and over four switches, alternating; medians.
``ratio_*`` is the worse of the two paths. ``loss_share_of_link``: 1 % random loss each way, 20 ms round trip,
100 Mbit/s. ``jain``: index of fairness beside one TCP flow for 20 s at a drop-tail bottleneck of 50 Mbit/s.
``cpu_s_per_gb``: user and system seconds of both ends' processes on the unshaped path over two switches,
``cpu_s_per_gb_100`` at 100 Mbit/s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import finish, run_main
from benchmarks.transport_net import Bench, Flow, NotReached, plan_of, standing
from topologies.errors import TopologyError

OBJECT_BYTES = 64_000_000
REPEATS = 5
RATES: dict[str, float | None] = {"10": 10.0, "100": 100.0, "500": 500.0, "unshaped": None}
CPU_OF = {"100": "_100", "unshaped": ""}
PARTS = (*RATES, "loss", "jain")
PATHS = {"2": ("a", "b"), "4": ("a", "c")}
LOSS_MBPS, LOSS_PERCENT, LOSS_DELAY_MS = 100.0, 1.0, 10.0
FAIR_MBPS, FAIR_S, FAIR_DELAY_MS = 50.0, 20.0, 10.0


def tell(text: str) -> None:
    """Say how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


class Runs:
    """Repeats of ours and TCP's on one path."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ours: list[Flow] = []
        self.tcp: list[Flow] = []

    def measure(self, bench: Bench, source: str, target: str, size: int, repeats: int) -> None:
        """Alternate, so that both meet the same weather."""
        for number in range(1, repeats + 1):
            self.ours.append(bench.ours(source, target, size))
            self.tcp.append(bench.tcp(source, target, size=size))
            ours, tcp = self.ours[-1], self.tcp[-1]
            tell(
                f"{self.name} [{number}/{repeats}] ours {ours.goodput_mbps:7.1f} Mbit/s ({ours.repeated} repeated,"
                f" {ours.cpu_s:.2f} s CPU), TCP {tcp.goodput_mbps:7.1f} ({tcp.repeated} repeated,"
                f" {tcp.cpu_s:.2f} s CPU)"
            )

    @property
    def ratio(self) -> float:
        return goodput(self.ours) / goodput(self.tcp)

    def details(self) -> dict[str, Any]:
        return {
            "ratio": round(self.ratio, 3),
            "ours_mbps": [round(flow.goodput_mbps, 1) for flow in self.ours],
            "tcp_mbps": [round(flow.goodput_mbps, 1) for flow in self.tcp],
            "ours_repeated": [flow.repeated for flow in self.ours],
            "tcp_repeated": [flow.repeated for flow in self.tcp],
            "cpu_s_per_gb": round(cpu_per_gb(self.ours), 2),
            "tcp_cpu_s_per_gb": round(cpu_per_gb(self.tcp), 2),
        }


def goodput(flows: Sequence[Flow]) -> float:
    """Return the median goodput, Mbit/s."""
    return statistics.median(flow.goodput_mbps for flow in flows)


def cpu_per_gb(flows: Sequence[Flow]) -> float:
    """Return the median of CPU seconds per 10^9 bytes."""
    return statistics.median(flow.cpu_s / flow.bytes * 1e9 for flow in flows)


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 when all get the same, 1/n when one gets all (Jain, Chiu, Hawe 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


class Benchmark:
    """All parts, and what they came to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.repeats: int = options.repeats
        self.result: dict[str, Any] = {"bench": "transport", "object_bytes": options.size, "repeats": self.repeats}
        self.result["keys"] = options.keys
        self.details: dict[str, Any] = {}

    def run(self) -> None:
        for part in PARTS:
            if part in self.options.only:
                work: Callable[[], None] = {"loss": self.loss, "jain": self.jain}.get(part) or (
                    lambda part=part: self.rate(part)  # type: ignore[misc]
                )
                work()

    def rate(self, part: str) -> None:
        """Ours against TCP at one rate, over two and over four switches."""
        rate = RATES[part]
        with standing(plan_of(rate), shaped=rate is not None, keys=self.options.keys) as bench:
            runs = {path: Runs(f"{part} over {path} switches") for path in PATHS}
            for path, (source, target) in PATHS.items():
                runs[path].measure(bench, source, target, self.options.size, self.repeats)
        self.result[f"ratio_{part}"] = round(min(found.ratio for found in runs.values()), 3)
        self.details[part] = {path: found.details() for path, found in runs.items()}
        if part in CPU_OF:
            self.result[f"cpu_s_per_gb{CPU_OF[part]}"] = round(cpu_per_gb(runs["2"].ours), 2)
            self.result[f"tcp_cpu_s_per_gb{CPU_OF[part]}"] = round(cpu_per_gb(runs["2"].tcp), 2)

    def loss(self) -> None:
        """Ours and TCP with random loss on a long path."""
        plan = plan_of(LOSS_MBPS, wan_delay_ms=LOSS_DELAY_MS, wan_loss_percent=LOSS_PERCENT)
        runs = Runs("1 % loss, 20 ms")
        with standing(plan, keys=self.options.keys) as bench:
            runs.measure(bench, "a", "c", self.options.size, self.repeats)
        self.result["loss_share_of_link"] = round(goodput(runs.ours) / LOSS_MBPS, 3)
        self.result["tcp_loss_share_of_link"] = round(goodput(runs.tcp) / LOSS_MBPS, 3)
        self.details["loss"] = runs.details()

    def jain(self) -> None:
        """Ours beside TCP at a bottleneck that drops what its queue does not hold."""
        found = []
        with standing(plan_of(FAIR_MBPS, wan_delay_ms=FAIR_DELAY_MS), keys=self.options.keys) as bench:
            for number in range(1, self.repeats + 1):
                shares = self._beside(bench)
                found.append((jain(shares), *shares))
                tell(
                    f"beside TCP [{number}/{self.repeats}] ours {shares[0]:.1f} Mbit/s, TCP {shares[1]:.1f}:"
                    f" Jain's index {found[-1][0]:.3f}"
                )
        self.result["jain"] = round(statistics.median(index for index, _, _ in found), 3)
        self.details["jain"] = [[round(value, 3) for value in one] for one in found]

    def _beside(self, bench: Bench) -> tuple[float, float]:
        """Return the goodputs of ours and of TCP, Mbit/s, that begin together and last as long."""
        server = bench.tcp_server("d")
        bench.ask("c", "cpu")  # the receiving end stands
        bench.tell("a", "run", bench.address["c"], self.options.fair_s, bench.new_object())
        client = bench.tcp_client("b", "d", seconds=self.options.fair_s)
        waiting = threading.Timer(self.options.fair_s + 60, client.kill)
        waiting.start()
        tcp = bench.tcp_result(client, server)
        waiting.cancel()
        return float(bench.hear("a")["goodput_mbps"]), tcp.goodput_mbps


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.transport", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one repeat of each")
    parser.add_argument("--keys", action="store_true", help="signed launches, sealed shards: as in a run")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part (may be repeated)")
    parser.add_argument("--size", type=int, default=OBJECT_BYTES, help="bytes of the object [default: 64000000]")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="repeats, of which the median counts [default: 5]")
    parser.add_argument("--fair-s", type=float, default=FAIR_S, help="seconds beside TCP [default: 20]")
    options = parser.parse_args(arguments)
    options.only = options.only or list(PARTS)
    options.repeats = 1 if options.quick else options.repeats
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit status 0: measured, 2: the machine is not ready, 130: Ctrl-C."""
    benchmark = Benchmark(parse(arguments))
    status = 0
    try:
        benchmark.run()
    except (TopologyError, NotReached) as error:
        tell(f"error: {error}")
        status = 2
    except KeyboardInterrupt:
        status = 130
    finish({**benchmark.result, "details": benchmark.details})
    return status


if __name__ == "__main__":
    run_main(main)
