"""Is a link between servers what was declared? Measured from both of its ends, each on its own machine.

As any link is measured, but in frames that the tunnel carries, and with two clocks: what one way seems too long by,
the other seems too short by, so the mean of both is the delay whatever the clocks say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from topologies.cluster.parts import Cut
from topologies.machine.calibrate import NOTHING_CAME, Direction, LinkCalibration, judge
from topologies.machine.frames import End
from topologies.plan import LinkPlan

ETHERNET_BYTES = 14
Step = Literal["open", "send_probes", "take_probes", "send_train", "take_train"]
STEPS: tuple[Step, ...] = ("open", "send_probes", "take_probes", "send_train", "take_train")


class Heard(msgspec.Struct, kw_only=True):
    """What came to one end; ``delay_ms`` by two clocks."""

    mbps: float
    delay_ms: float
    loss: float


class TunnelEnd:
    """This server's end of a link, while it is measured."""

    def __init__(self, cut: Cut) -> None:
        self._end = End(cut.interface, None)
        self._way = Direction(cut.link, self._end, self._end, cut.mtu + ETHERNET_BYTES)

    def do(self, step: Step) -> None:
        """Take one step; both ends take it before either takes the next (``open``: it listens already)."""
        if step != "open":
            getattr(self._way, step)()

    def heard(self) -> Heard:
        """Return what came, and end."""
        self._end.close()
        return Heard(mbps=self._way.mbps, delay_ms=self._way.delay_ms, loss=self._way.loss)


def judge_tunnel(link: LinkPlan, ends: Sequence[Heard]) -> LinkCalibration:
    """Hold what came to the ends ``a`` and ``b`` against the link's declaration."""
    back, there = ends
    silent = NOTHING_CAME in (there.delay_ms, back.delay_ms)
    delay_ms = NOTHING_CAME if silent else (there.delay_ms + back.delay_ms) / 2
    return judge(link, *(Heard(mbps=way.mbps, delay_ms=delay_ms, loss=way.loss) for way in (there, back)))
