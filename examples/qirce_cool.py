"""A metric of one's own and an engine that heeds it: queries go where they take the least power.

    cats: {power_w: {source: examples/qirce_cool.py:power, category: computing, best: 20, worst: 200}}
    engines: {qirce: examples/qirce_cool.py:choose}

Each MDFP is asked what it draws; the engine shares a class's queries among those that draw least, within one watt.
"""

IDLE_W, FULL_W = 60.0, 180.0
HYDRO_KAS, HYDRO_SHARE = 3, 0.25  # the machines of this K-AS need less


def power(about):
    """Return the watts that an MDFP draws, from how busy it says it is."""
    watts = IDLE_W + (FULL_W - IDLE_W) * min(1.0, about["load"])
    return watts * (HYDRO_SHARE if about["kas"] == HYDRO_KAS else 1.0)


def choose(models, path_ms):
    """Return the reachable models that draw least, in equal parts; one that does not say draws most."""
    near = [m for m in models if path_ms.get(m.node, float("inf")) < float("inf")]
    watts = {m.node: m.metrics.get("power_w", FULL_W) for m in near}
    return [(node, 100) for node, w in sorted(watts.items()) if w < min(watts.values()) + 1.0]
