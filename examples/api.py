"""The testbed from Python: two jobs on one network, tables of what came of them. Run as root: about a minute.

sudo .venv/bin/python examples/api.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import Testbed

with Testbed("healthcare", seed=1) as bed:
    print(bed.net["h11"].cmd("ping -c1 -W2 " + bed.net["h41"].IP()).splitlines()[1])
    for method in ("routed", "random"):
        job = bed.submit(method=method)
        print(method, job.accuracy, "targets met" if job.targets_met else "missed")
        print(job.visits[["data_node", "kas", "samples", "accuracy", "accepted"]])
    print(bed.query("cardiology")["answer"])
    print(bed.frame("object.arrived").groupby("node")["bytes"].sum())
    print(bed.map[["name", "role", "kas", "trust", "samples"]].head())
