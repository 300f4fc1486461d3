"""The network of ``bench-steer``: one K-AS of four switches in a line, a second for what a job needs besides.

One MDFP has a whole core, to be measured against other servers; four have a slice of one, to be measured together.
"""

from __future__ import annotations

from itertools import pairwise

from topologies.own.topo import Topo
from topologies.plan import Role

SLICE = 0.12
ASKERS_A_SWITCH = 1


class FourSwitches(Topo):
    """Askers at each of the four switches, the MDFPs at the far end of the first asker's."""

    def build(self, askers: int = ASKERS_A_SWITCH) -> None:
        line = [self.addSwitch(f"s{n}", kas=1, gateway=n == 4) for n in range(1, 5)]
        far = self.addSwitch("s5", kas=2, gateway=True)
        for a, b in pairwise(line):
            self.addLink(a, b, bw=200)
        self.addLink(line[3], far, bw=200)
        for number, switch in enumerate(line, 1):
            for asker in range(1, askers + 1):
                self.addLink(self.addHost(f"a{number}n{asker}", role="query_owner"), switch, bw=100)
        for name in ("big", *(f"m{n}" for n in range(1, 5))):
            host = self.addHost(name, role="mdfp", cpu_share=1.0 if name == "big" else SLICE)
            self.addLink(host, line[3], bw=100)
        others: dict[str, Role] = {
            "owner": "model_owner",
            "h1": "data",
            "h2": "data",
            "h3": "data",
            "c1": "compute",
            "v1": "mpvu",
        }
        for name, role in others.items():
            self.addLink(self.addHost(name, role=role), line[1], bw=100)
        self.addLink(self.addHost("v2", role="mpvu"), far, bw=100)


class ManyAskers(FourSwitches):
    """The same with fifty askers at each switch."""

    def build(self, askers: int = 50) -> None:
        super().build(askers)
