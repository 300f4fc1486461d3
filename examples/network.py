"""A network of one's own, in Mininet's idiom: two K-AS, the first with two gateways, each with a link of its own.

        ,-- s2 ===== 50 Mbit/s, 5 ms ===== s4 --.
h1..h3 s1                                      s5 h4..h6
        `-- s3 ===== LEO satellite  ====== s4 -'

  daitn run healthcare --topo examples/network.py:TwoGateways
  sudo mn --custom examples/network.py --topo twogateways --controller dcc --test pingall
"""

import sys
from pathlib import Path

# ``mn`` runs this file by exec(), under Debian's Python: say where the project is (from elsewhere: its path).
sys.path.insert(0, str(Path(sys._getframe().f_code.co_filename).resolve().parent.parent))

from topologies.own.topo import Topo, cleanup, for_mn  # noqa: F401  (cleanup replaces mn's own)


class TwoGateways(Topo):
    """Hospitals in two K-AS; either gateway of the first one carries all when the other is gone."""

    def build(self, data: int = 6) -> None:
        s1, s2, s3 = self.addSwitch("s1", kas=1), *(self.addSwitch(n, kas=1, gateway=True) for n in ("s2", "s3"))
        s4, s5 = self.addSwitch("s4", kas=2, gateway=True), self.addSwitch("s5", kas=2)
        for a, b in ((s1, s2), (s1, s3), (s4, s5)):
            self.addLink(a, b, bw=200)
        self.addLink(s2, s4, bw=50, delay="5ms")
        self.addLink(s3, s4, profile="leo", loss=0)
        for number in range(1, data + 1):
            self.addLink(self.addHost(f"h{number}", role="data", cpu_share=0.5), s1 if number <= data / 2 else s5)
        for name, role, switch in (
            ("owner", "model_owner", s1),
            ("c1", "compute", s1),
            ("mpvu1", "mpvu", s1),
            ("mdfp1", "mdfp", s5),
            ("mpvu2", "mpvu", s5),
            ("asker", "query_owner", s5),
        ):
            self.addLink(self.addHost(name, role=role), switch)


topos, controllers = for_mn(twogateways=TwoGateways)
