"""The network of ``bench-ways``.

::

    asker1-4, owner, m1, data --- s1 (K-AS 1, 2) --- 50 Mbit/s, 1 ms --- s2 (K-AS 2, m2, m3) --- 50 Mbit/s, 1 ms --- s3
                                                                                                      (K-AS 3, m4)

Each MDFP has half a core.
"""

from __future__ import annotations

from itertools import pairwise

from topologies.own.topo import Topo
from topologies.plan import Role

SHARE, RATE_MBPS, DELAY_MS = 0.5, 50.0, 1.0
ASKERS = 4
MDFPS = {"m1": 0, "m2": 1, "m3": 1, "m4": 2}


class ThreeKas(Topo):
    """Three K-AS in a line, askers in the first, MDFPs in all."""

    def build(self) -> None:
        line = [self.addSwitch(f"s{n}", kas=n, gateway=True) for n in (1, 2, 3)]
        for a, b in pairwise(line):
            self.addLink(a, b, bw=RATE_MBPS, delay=f"{DELAY_MS}ms")
        others: dict[str, Role] = {f"a{n}": "query_owner" for n in range(1, ASKERS + 1)}
        others |= {"owner": "model_owner", "h1": "data", "h2": "data", "c1": "compute", "v1": "mpvu"}
        for name, role in others.items():
            self.addLink(self.addHost(name, role=role), line[0], bw=1000)
        for name, at in MDFPS.items():
            self.addLink(self.addHost(name, role="mdfp", cpu_share=SHARE), line[at], bw=1000)
        self.addLink(self.addHost("v2", role="mpvu"), line[2], bw=1000)
