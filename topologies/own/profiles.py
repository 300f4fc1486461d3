"""Links by the name of their kind, with the middle of what is measured of such links; delay is one way.

| name | rate Mbit/s | delay ms | loss % | source |
|---|---|---|---|---|
| dsl | 50 (10..100) | 10 (5..20) | 0.1 | ITU-T G.993.2 (VDSL2); FCC, Measuring Broadband America, 2021 |
| 4g | 30 (5..100) | 25 (15..50) | 0.1 | Huang et al., MobiSys 2012; Narayanan et al., WWW 2020 |
| 5g | 150 (50..200, mid-band; one emulated link carries 200) | 10 (5..20) | 0.1 | Narayanan et al., SIGCOMM 2021 |
| leo | 100 (50..200) | 25 (15..40) | 0.5 | Michel et al., IMC 2022 (Starlink) |
| geo | 20 (5..50) | 260 (240..280) | 0.1 | RFC 2488, section 2; ITU-T G.114 |
| datacenter | 1000 (1000..10000) | 0 (0.05..0.25) | 0 | Guo et al. (Pingmesh), SIGCOMM 2015 |
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from topologies.errors import PlanError


class Profile(NamedTuple):
    """What a kind of link is like."""

    rate_mbps: float
    delay_ms: float
    loss_percent: float = 0.0


PROFILES = {
    "dsl": Profile(50.0, 10.0, 0.1),
    "4g": Profile(30.0, 25.0, 0.1),
    "5g": Profile(150.0, 10.0, 0.1),
    "leo": Profile(100.0, 25.0, 0.5),
    "geo": Profile(20.0, 260.0, 0.1),
    "datacenter": Profile(1000.0, 0.0),
}


def profile(name: str) -> Profile:
    """Return a kind of link; ``PlanError`` names the nearest one."""
    found = PROFILES.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), PROFILES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PlanError(f"no link profile is called {name!r}; {hint}there are: {', '.join(PROFILES)}")
    return found
