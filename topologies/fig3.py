r"""The network of the paper's Figure 3: four K-AS, each with its gateway (KBG), joined over wide-area links.

       K-AS 1  10.1.0.0/16                         K-AS 2  10.2.0.0/16
    h11 h13 mdfp1  h12 c1 owner1                h21 h23 mpvu2   h22 c2
      |  |  |       |  |  |                        |  |  |       |  |
      k1s1 -------- k1s2                           k2s1 -------- k2s2
         \            /                               \            /
          `-- k1g ---'                                 `--- k2g --'
              | \ `----------- 50 Mbit/s, 10 ms ------------' |
              |  \                                            |
    50, 10 ms |   `------------ 50, 20 ms ---------------.    | 50 Mbit/s, 10 ms
              |                                           \   |
              | .------------- 50 Mbit/s, 10 ms ---------. \  |
          .-- k4g --.                                   .-- k3g --.
         /           \                                 /           \
      k4s1 -------- k4s2                           k3s1 -------- k3s2
      |  |  |       |  |  |                        |  |  |       |  |
    h41 h43 mpvu4  h42 c4 asker4                h31 h33 mdfp3   h32 c3
       K-AS 4  10.4.0.0/16                         K-AS 3  10.3.0.0/16

Access links run at 100 Mbit/s, links inside a K-AS at 200 Mbit/s. ``h<k><n>`` are hospitals (data nodes; the third of
each K-AS lets its data move to a compute facility), ``c<k>`` compute facilities. A terminal at switch i of K-AS k has
an address 10.k.i.n/16.

    sudo mn --custom topologies/fig3.py --topo fig3 --controller dcc      (our own control centre, one for all K-AS)
    sudo mn --custom topologies/fig3.py --topo fig3 --controller remote   (yours, on 127.0.0.1:6653, OpenFlow 1.3)
"""

import sys
from pathlib import Path

# ``mn`` runs this file by exec(), under Debian's Python, without ``__file__``: the code knows where it came from.
sys.path.insert(0, str(Path(sys._getframe().f_code.co_filename).resolve().parent.parent))

from topologies import venv  # noqa: F401  (first: what only the project's .venv has becomes importable)
from topologies.build import Terminal, Wan, build_plan
from topologies.custom import cleanup, dcc_controller, plan_topo  # noqa: F401  (replaces mn's own clean-up)

SPECIAL = {
    1: [Terminal("mdfp1", "mdfp", switch=1), Terminal("owner1", "model_owner", switch=2)],
    2: [Terminal("mpvu2", "mpvu", switch=1)],
    3: [Terminal("mdfp3", "mdfp", switch=1)],
    4: [Terminal("mpvu4", "mpvu", switch=1), Terminal("asker4", "query_owner", switch=2)],
}


def common(k: int) -> list[Terminal]:
    """Return what every K-AS of the figure has: three hospitals and a compute facility."""
    return [
        Terminal(f"h{k}1", "data"),
        Terminal(f"h{k}2", "data"),
        Terminal(f"h{k}3", "data", data_may_move=True),
        Terminal(f"c{k}", "compute"),
    ]


PLAN = build_plan(
    "fig3",
    kas={k: common(k) + SPECIAL[k] for k in (1, 2, 3, 4)},
    wan=[Wan(1, 2), Wan(2, 3), Wan(3, 4), Wan(4, 1), Wan(1, 3, delay_ms=20.0)],
)

topos = {"fig3": plan_topo(PLAN)}
controllers = {"dcc": dcc_controller(PLAN)}
