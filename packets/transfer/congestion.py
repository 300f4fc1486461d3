"""How fast a transfer may send: a model of the path (delivery rate, shortest round trip), not of its losses.

In the manner of BBR (Cardwell et al., ACM Queue 2016; draft-ietf-ccwg-bbr): send at the rate at which
acknowledgements say that packets arrive, keep about two bandwidth-delay products in flight, probe for more now and
then.  Random loss therefore costs only the lost packets, and the queue of the bottleneck stays short.

For others' sake there is a ceiling on what is in flight, which moves as CUBIC's window does (RFC 9438): it falls by
30 % on a loss that comes with a standing queue (even the shortest round trip of a round was long), or on heavy loss,
and grows with the cube of time.  Where a queue stands, the transfer now and then sends less for a moment: a queue that
then stays belongs to somebody else (a TCP that fills buffers), and the ceiling is the window until it is gone, else we
would starve.

Units: packets, seconds.  No clock and no socket of its own.
"""

from __future__ import annotations

from collections import deque

import msgspec

STARTUP_GAIN = 2.77
WINDOW_GAIN = 2.0
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
INITIAL_WINDOW = 32.0
MIN_WINDOW = 4.0
SLACK_S = 0.010  # what batched answers and threads that wait for the interpreter hold up, at the going rate
MAX_EXTRA_S = 0.040  # ... and at most, where answers were seen to come in larger lumps
HEAVY_LOSS = 0.15
MEMORY_ROUNDS, MEMORY_S = 10, 0.25  # rounds on a short path are shorter than a pause of a process
MIN_RTT_EXPIRES_S = 10.0
QUEUED, QUEUED_S = 1.25, 0.004  # round trips all longer than this (times the shortest, plus) tell of a queue
PROBED = 1.12
STANDING_ROUNDS = 3
CROWD_CHECK_S = 4.0
CUBIC_C, CUBIC_BETA, RENO_GAIN = 0.4, 0.7, 0.53


class Sent(msgspec.Struct):
    """What is remembered of packets that left together, to sample the delivery rate when they are acknowledged."""

    at: float
    delivered: int
    delivered_at: float
    first_sent_at: float


class Congestion:
    """Pacing rate and window of one transfer.

    ``rate``: packets/s; ``window``: packets; ``bandwidth``: delivery rate of the bottleneck as seen lately, packets/s.
    """

    def __init__(self, now: float, rtt_s: float) -> None:
        self.min_rtt_s = max(rtt_s, 1e-4)
        self.srtt_s = self.min_rtt_s
        self.rttvar_s = self.min_rtt_s / 2
        self.bandwidth = INITIAL_WINDOW / max(min(rtt_s, 0.02), 0.002)
        self.delivered = 0
        self.delivered_at = now
        self._first_sent_at = now
        self._min_rtt_at = now
        self._samples = _Highest()
        self._round, self._round_ends_at = 0, 0
        self._round_lost, self._round_delivered, self._round_min_rtt_s = 0, 0, float("inf")
        self._filled, self._full_rate, self._full_rounds = False, 0.0, 0
        self._draining = False
        self._cycle_index, self._cycle_at = 2, now
        self._cut_at, self._cut_from = now, float("inf")
        self._crowded, self._standing, self._check_at = False, 0, 0.0
        self._recovered_at = 0
        self._probe_rtt_until = 0.0
        self._queue_before_s = 0.0
        self._last_rtt_s = self._probed_rtt_s = rtt_s
        self._epoch_at, self._epoch_count, self._lump = now, 0, 0.0
        self._extras = _Highest()

    # --- what a sender asks ---------------------------------------------------------------------------------------

    @property
    def filled(self) -> bool:
        """Tell whether the start is over: the rate has been found."""
        return self._filled

    @property
    def probing(self) -> bool:
        """Tell whether the queue runs dry to be measured: until then the line may idle, so every answer counts."""
        return bool(self._probe_rtt_until)

    @property
    def rate(self) -> float:
        """Packets/s to send at now."""
        if not self._filled:
            return self.bandwidth * STARTUP_GAIN
        if self._draining:
            return self.bandwidth / STARTUP_GAIN
        if self._crowded:
            return max(self.bandwidth, 1.2 * self.window / self.srtt_s)
        return self.bandwidth * CYCLE[self._cycle_index]

    @property
    def window(self) -> float:
        """Packets that may be in flight now."""
        if self._probe_rtt_until:
            return max(self.bandwidth * self.min_rtt_s * 0.75, MIN_WINDOW)
        gain = WINDOW_GAIN if self._filled else STARTUP_GAIN
        model = gain * self.bandwidth * self.min_rtt_s + self._slack + MIN_WINDOW
        if not self._samples:
            model = INITIAL_WINDOW
        if self._crowded:
            return max(self._ceiling, MIN_WINDOW)
        return max(min(model, self._ceiling), MIN_WINDOW)

    @property
    def timeout_s(self) -> float:
        """Silence after which the sender asks by sending again."""
        return max(self.srtt_s + 4 * self.rttvar_s, 0.08) + 0.02

    @property
    def reorder_s(self) -> float:
        """How much later a packet may arrive than one sent after it without being thought lost."""
        return max(self.srtt_s / 4, 0.004)

    # --- what a sender tells --------------------------------------------------------------------------------------

    def sent(self, now: float, in_flight: int) -> Sent:
        """Note packets that leave now, ``in_flight`` others being under way."""
        if in_flight == 0:
            self._first_sent_at = self.delivered_at = now
        return Sent(now, self.delivered, self.delivered_at, self._first_sent_at)

    def lost(self, count: int) -> None:
        """Note packets thought lost."""
        self._round_lost += count

    def acknowledged(self, newest: Sent, count: int, now: float, rtt_s: float | None, in_flight: int) -> None:
        """Note ``count`` packets delivered, ``newest`` being the last of them to be sent."""
        self.delivered += count
        self.delivered_at = now
        self._first_sent_at = max(self._first_sent_at, newest.at)
        self._round_delivered += count
        if rtt_s is not None:
            self._measure_rtt(rtt_s, now)
        if newest.delivered >= self._round_ends_at:
            self._end_round(now, in_flight)
        self._sample_rate(newest, now)
        self._measure_lumps(count, now)
        self._steer(now, in_flight)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _measure_rtt(self, rtt_s: float, now: float) -> None:
        self.rttvar_s += (abs(rtt_s - self.srtt_s) - self.rttvar_s) / 4
        self.srtt_s += (rtt_s - self.srtt_s) / 8
        self._round_min_rtt_s = min(self._round_min_rtt_s, rtt_s)
        self._last_rtt_s = rtt_s
        if rtt_s <= self.min_rtt_s:
            self.min_rtt_s, self._min_rtt_at = max(rtt_s, 1e-4), now
        self._probe_rtt(rtt_s, now)

    def _probe_rtt(self, rtt_s: float, now: float) -> None:
        """Let our part of the queue run dry for a moment: to measure the shortest round trip, or whose queue it is."""
        if self._probe_rtt_until:
            self._probed_rtt_s = min(self._probed_rtt_s, rtt_s)
            ours = not self._has_queue(rtt_s) and not self._min_rtt_is_old(now)
            if ours or now >= self._probe_rtt_until:
                self._end_probe(now)
        elif self._filled and self._min_rtt_is_old(now, 3 if self._crowded else 1):
            self._begin_probe(now)

    def _min_rtt_is_old(self, now: float, times: float = 1) -> bool:
        return now - self._min_rtt_at > MIN_RTT_EXPIRES_S * times

    def _begin_probe(self, now: float) -> None:
        self._probe_rtt_until = now + 2 * self.srtt_s + 0.01
        self._probed_rtt_s = self._last_rtt_s
        self._queue_before_s = self.srtt_s - self.min_rtt_s

    def _end_probe(self, now: float) -> None:
        self._probe_rtt_until = 0.0
        self._check_at = now + CROWD_CHECK_S
        left_s = self._probed_rtt_s - self.min_rtt_s
        self._be_crowded(self._has_queue(self._probed_rtt_s) and left_s > self._queue_before_s / 2, now)
        if self._min_rtt_is_old(now, 3 if self._crowded else 1):
            self.min_rtt_s, self._min_rtt_at = max(self._probed_rtt_s, 1e-4), now

    def _has_queue(self, rtt_s: float) -> bool:
        """Tell whether a queue is left while a probe holds ours back: answers come at once then, so less is enough."""
        return PROBED * self.min_rtt_s + QUEUED_S < rtt_s < float("inf")

    def _is_long(self, rtt_s: float) -> bool:
        return QUEUED * self.min_rtt_s + QUEUED_S < rtt_s < float("inf")

    def _be_crowded(self, crowded: bool, now: float) -> None:
        """From now on compete by the ceiling, or follow the model."""
        if crowded and not self._crowded and self._cut_from == float("inf"):
            window = self.window
            self._cut_at, self._cut_from = now - _plateau_s(window), window
        self._crowded = crowded

    @property
    def _slack(self) -> float:
        """Packets that may be in flight beyond the model, since answers come in lumps."""
        return min(max(self._lump, self.bandwidth * SLACK_S), self.bandwidth * MAX_EXTRA_S)

    def _measure_lumps(self, count: int, now: float) -> None:
        """See how far answers run ahead of the bandwidth: so much has to be in flight while none comes."""
        expected = self.bandwidth * (now - self._epoch_at)
        if self._epoch_count <= expected:
            self._epoch_at, self._epoch_count, expected = now, 0, 0.0
        self._epoch_count += count
        self._lump = self._extras.add(self._epoch_count - expected, self._round, now)

    def _sample_rate(self, newest: Sent, now: float) -> None:
        interval = max(now - newest.delivered_at, newest.at - newest.first_sent_at)
        if interval < max(self.min_rtt_s * 0.9, 0.001):
            return
        rate = (self.delivered - newest.delivered) / interval
        self.bandwidth = self._samples.add(rate, self._round, now)

    def _end_round(self, now: float, in_flight: int) -> None:
        self._round += 1
        self._round_ends_at = self.delivered
        share = self._round_lost / max(self._round_lost + self._round_delivered, 1)
        heavy = share > HEAVY_LOSS and self._round_lost >= 4
        standing = self._filled and self._is_long(self._round_min_rtt_s)
        if (heavy or (standing and self._round_lost > 0)) and self._round > self._recovered_at:
            self._cut(now, in_flight + self._round_lost)
        self._judge_queue(standing, now)
        if not self._filled and self._samples:
            self._judge_startup(heavy)
        self._round_lost, self._round_delivered, self._round_min_rtt_s = 0, 0, float("inf")

    def _judge_queue(self, standing: bool, now: float) -> None:
        """Where a queue has stood for some rounds, see now and then whose it is."""
        if self._probe_rtt_until or self._draining:
            return
        self._standing = self._standing + 1 if standing else 0
        if not standing:
            self._crowded = False
        elif self._standing >= STANDING_ROUNDS and now >= self._check_at:
            self._begin_probe(now)

    def _judge_startup(self, heavy: bool) -> None:
        if self.bandwidth > self._full_rate * 1.25:
            self._full_rate, self._full_rounds = self.bandwidth, 0
        else:
            self._full_rounds += 1
        if heavy or self._full_rounds >= 3:
            self._filled = self._draining = True

    @property
    def _ceiling(self) -> float:
        """CUBIC's window: packets in flight that others put up with, but never less than what brings what we get."""
        if self._cut_from == float("inf"):
            return float("inf")
        since_s = self.delivered_at - self._cut_at
        cubic = CUBIC_C * (since_s - _plateau_s(self._cut_from)) ** 3 + self._cut_from
        reno = self._cut_from * CUBIC_BETA + RENO_GAIN * since_s / self.srtt_s
        return max(cubic, reno, self.bandwidth * self.min_rtt_s + self._slack)

    def _cut(self, now: float, in_flight: int) -> None:
        """One cut for all losses of one overflow: what left before it may still be found missing."""
        window = self._ceiling if self._crowded else float(in_flight)
        self._cut_at, self._cut_from = now, max(window, MIN_WINDOW)
        self._recovered_at = self._round + 1

    def _steer(self, now: float, in_flight: int) -> None:
        product = self.bandwidth * self.min_rtt_s
        if self._draining:
            if in_flight <= product + max(self.bandwidth * SLACK_S, MIN_WINDOW):
                self._draining = False
                self._cycle_index, self._cycle_at = 2, now
        elif self._filled and now - self._cycle_at > max(self.min_rtt_s, 0.005):
            self._cycle_index, self._cycle_at = (self._cycle_index + 1) % len(CYCLE), now


class _Highest:
    """The highest of the values of the last rounds."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, int, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, value: float, number: int, now: float) -> float:
        """Note a value of round ``number``; return the highest that is not yet forgotten."""
        values = self._values
        while values and values[-1][0] <= value:
            values.pop()
        values.append((value, number, now))
        while values[0][1] <= number - MEMORY_ROUNDS and values[0][2] < now - MEMORY_S:
            values.popleft()
        return values[0][0]


def _plateau_s(window: float) -> float:
    """CUBIC's K: seconds from a cut until the window from which it was made is reached again."""
    return float((window * (1 - CUBIC_BETA) / CUBIC_C) ** (1 / 3))
