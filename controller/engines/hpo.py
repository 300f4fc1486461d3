"""HPO: epochs, batch size, learning rate and group weights of one visit.

Early visits learn fast; the learning rate then falls with the visits made, so that late visits polish without wiping out
what earlier hospitals taught.  Every method of ordering visits gets the same hyper-parameters: what a comparison of routes
compares is the route.
"""

from __future__ import annotations

from controller.engines.types import Hyper, Measured, Request

EPOCHS = 2.0
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
LOWEST_RATE = 5e-4
RATE_DECAY = 0.88


def hyper(request: Request, visit: int, measured: Measured | None = None) -> Hyper:
    """Return the hyper-parameters of training visit number ``visit`` (0 is the first)."""
    rate = max(LOWEST_RATE, LEARNING_RATE * RATE_DECAY**visit)
    return Hyper(epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=rate)
