"""One K-AS, two switches, six terminals: a small network for tests and first steps.

 h11 h12 c1 mpvu1                 owner1 mdfp1
   |  |  |  |                        |     |
   `- k1s1 ------- 200 Mbit/s ------- k1g -'

sudo mn --custom topologies/single.py --topo single --controller dcc
"""

import sys
from pathlib import Path

# ``mn`` runs this file by exec(), under Debian's Python, without ``__file__``: the code knows where it came from.
sys.path.insert(0, str(Path(sys._getframe().f_code.co_filename).resolve().parent.parent))

from topologies import venv  # noqa: F401  (first: what only the project's .venv has becomes importable)
from topologies.build import Terminal, build_plan
from topologies.custom import cleanup, dcc_controller, plan_topo  # noqa: F401  (replaces mn's own clean-up)

PLAN = build_plan(
    "single",
    kas={
        1: [
            Terminal("h11", "data"),
            Terminal("h12", "data"),
            Terminal("c1", "compute"),
            Terminal("mpvu1", "mpvu"),
            Terminal("owner1", "model_owner", switch=2),
            Terminal("mdfp1", "mdfp", switch=2),
        ]
    },
    access_switches=1,
)

topos = {"single": plan_topo(PLAN)}
controllers = {"dcc": dcc_controller(PLAN)}
