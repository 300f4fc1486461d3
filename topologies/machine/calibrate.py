"""Is each link what was declared? Measured on the link itself, both ways, after bring-up, without a controller.

Rate: a train of full frames, longer than the shaper's burst, timed by the receiving kernel after the burst has
passed. Delay: a few small probes on the idle link, one way (both ends read the same clock). A link that is off is
measured again by itself, because a busy machine disturbs a measurement but does not repair a link.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

from topologies.machine.frames import Arrival, End
from topologies.plan import LinkPlan, NetworkPlan
from topologies.wiring import FRAME_BYTES, burst_bytes, ends

TOLERANCE = 0.15
DELAY_FLOOR_MS = 0.5  # scheduling noise: no delay is told from none below this
TRAIN_MS = 40.0
SLOWEST_MBPS = 1.0
MIN_TRAIN_FRAMES = 60
PROBES = 5
PROBE_GAP_S = 0.002
PROBE_BYTES = 64
GROUP_MBPS = 800.0  # sum over both directions measured at once: the one switch thread sees every frame
PATIENCE_S = 0.25
RETRIES = 2
NOTHING_CAME = -1.0


class LinkCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """One link, declared and measured: of its two directions the one further off (``directions_mbps`` has both)."""

    link: str
    rate_mbps: float
    measured_mbps: float
    delay_ms: float
    measured_delay_ms: float
    ok: bool
    directions_mbps: tuple[float, float]
    measured_loss_percent: float


class Measurable(Protocol):
    """What calibration needs of a standing network."""

    plan: NetworkPlan

    def namespace_pid(self, node: str) -> int | None: ...


class Direction:
    """One way over one link, in frames of ``frame_bytes``."""

    def __init__(self, link: LinkPlan, source: End, target: End, frame_bytes: int = FRAME_BYTES) -> None:
        self.link = link
        self.frame_bytes = frame_bytes
        self.source = source
        self.target = target
        self.mbps = 0.0
        self.delay_ms = 0.0
        self.loss = 0.0

    def measure_delay(self) -> None:
        self.send_probes()
        self.take_probes()

    def send_probes(self) -> None:
        for sequence in range(PROBES):
            self.source.send(sequence, 1, PROBE_BYTES)
            time.sleep(PROBE_GAP_S)

    def take_probes(self) -> None:
        arrivals = self.target.collect(PROBES, self.link.delay_ms / 1e3 + PATIENCE_S)
        self.delay_ms = (
            statistics.median([(a.arrived_ns - a.sent_ns) / 1e6 for a in arrivals]) if arrivals else NOTHING_CAME
        )

    def send_train(self) -> None:
        self.source.send(PROBES, self.frames, self.frame_bytes)

    def take_train(self) -> None:
        arrivals = self.target.collect(self.frames, self.link.delay_ms / 1e3 + PATIENCE_S)
        self.mbps = rate_mbps(arrivals, PROBES + self.skip, self.frame_bytes)
        self.loss = 100.0 * (1 - len(arrivals) / self.frames)

    @property
    def skip(self) -> int:
        """Frames that may pass unshaped, and as many again to be sure."""
        return 2 * burst_bytes(self.link.rate_mbps) // self.frame_bytes

    @property
    def frames(self) -> int:
        steady = int(self.link.rate_mbps * 1e3 * TRAIN_MS / 8 / self.frame_bytes)
        return self.skip + max(MIN_TRAIN_FRAMES, steady)


def rate_mbps(arrivals: Sequence[Arrival], first: int, frame_bytes: int = FRAME_BYTES) -> float:
    """Return the rate of frames from number ``first`` on, lost ones counted as carried; 0.0 when too few came."""
    steady = sorted((a for a in arrivals if a.sequence >= first), key=lambda a: a.sequence)
    times = [a.arrived_ns for a in steady]
    if len(steady) < 2 or max(times) <= min(times):
        return 0.0
    frames = steady[-1].sequence - steady[0].sequence
    return frames * frame_bytes * 8e3 / (max(times) - min(times))


def calibrate(network: Measurable, links: Iterable[LinkPlan] | None = None) -> list[LinkCalibration]:
    """Measure links (default: all of the plan) of a standing, idle network; return one entry each, in their order.

    Links slower than ``SLOWEST_MBPS`` are left out: a train over one would take many seconds.
    """
    wanted = [x for x in (network.plan.links if links is None else links) if x.rate_mbps >= SLOWEST_MBPS]
    results: dict[str, LinkCalibration] = {}
    with ThreadPoolExecutor(max_workers=64, thread_name_prefix="calibrate") as pool:
        for group in _groups(wanted):
            results |= _measure(network, group, pool)
        for _ in range(RETRIES):
            for link in wanted:
                if not results[link.name].ok:
                    results |= _measure(network, [link], pool)
    return [results[link.name] for link in wanted]


def unmeasured(plan: NetworkPlan) -> list[str]:
    """Return what is to be said of the links that ``calibrate`` leaves out."""
    slow = [link for link in plan.links if link.rate_mbps < SLOWEST_MBPS]
    return [f"link {x.name}: not measured, {x.rate_mbps:g} Mbit/s is too slow for it" for x in slow]


def _groups(links: Sequence[LinkPlan]) -> list[list[LinkPlan]]:
    """Split links so that no group, both ways at once, exceeds what the machine carries without disturbing itself."""
    groups: list[list[LinkPlan]] = [[]]
    for link in links:
        if groups[-1] and sum(2 * x.rate_mbps for x in [*groups[-1], link]) > GROUP_MBPS:
            groups.append([])
        groups[-1].append(link)
    return groups if links else []


def _measure(network: Measurable, links: Sequence[LinkPlan], pool: ThreadPoolExecutor) -> dict[str, LinkCalibration]:
    pairs = [_ends(network, link) for link in links]
    ways = [Direction(x, s, t) for x, (a, b) in zip(links, pairs, strict=True) for s, t in ((a, b), (b, a))]
    try:
        for step in (Direction.measure_delay, Direction.send_train, Direction.take_train):
            list(pool.map(step, ways))
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
    return {x.name: judge(x, ways[2 * i], ways[2 * i + 1]) for i, x in enumerate(links)}


def _ends(network: Measurable, link: LinkPlan) -> tuple[End, End]:
    a, b = ends(link)
    return End(a, network.namespace_pid(link.a)), End(b, network.namespace_pid(link.b))


class Measured(Protocol):
    """The outcome of one direction."""

    mbps: float
    delay_ms: float
    loss: float


def judge(link: LinkPlan, there: Measured, back: Measured) -> LinkCalibration:
    """Hold a link's two measured directions against its declaration."""
    rate = max((there.mbps, back.mbps), key=lambda mbps: abs(mbps - link.rate_mbps))
    delay = max((there.delay_ms, back.delay_ms), key=lambda ms: abs(ms - link.delay_ms))
    rate_ok = abs(rate - link.rate_mbps) <= TOLERANCE * link.rate_mbps
    delay_ok = delay >= 0 and abs(delay - link.delay_ms) <= max(TOLERANCE * link.delay_ms, DELAY_FLOOR_MS)
    return LinkCalibration(
        link=link.name,
        rate_mbps=link.rate_mbps,
        measured_mbps=round(rate, 2),
        delay_ms=link.delay_ms,
        measured_delay_ms=round(delay, 3),
        ok=rate_ok and delay_ok,
        directions_mbps=(round(there.mbps, 2), round(back.mbps, 2)),
        measured_loss_percent=round(max(there.loss, back.loss), 2),
    )
