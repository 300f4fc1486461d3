"""A route engine (MTRCE) of one's own in 20 lines: always the nearest data that was not met yet.

    daitn run healthcare --engine mtrce=examples/mtrce_nearest.py:plan
    daitn compare healthcare --engine mtrce=default,examples/mtrce_nearest.py:plan --seeds 5

The answer may be the options' handles in order, as here, or a whole ``Plan`` with hyper-parameters of your own.
"""

from controller.values.errors import EngineError


def plan(request, view, options, load):
    """Return the handles of ``options`` in the order in which to visit them; see ``daitn engines``."""
    met = [visit.mix for visit in view.visits]
    allowed = [o for o in options if o.samples and o.trust >= request.trust_floor]
    if not allowed:
        raise EngineError("nothing may be visited")
    fresh = [o for o in allowed if o.mix not in met] or allowed
    return [o.handle for o in sorted(fresh, key=lambda o: (o.kas != view.at_kas, o.reach_s + o.epoch_s, o.handle))]
