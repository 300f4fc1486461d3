"""A way to train in rounds of one's own: members at which the model does badly count more.

    daitn run healthcare --method examples/method_fair.py:Fair
    daitn compare healthcare --methods federated,examples/method_fair.py:Fair --seeds 3

In the manner of q-FedAvg (Li, Sanjabi, Beirami, Smith, ICLR 2020). The other half, what a member does with the round's
model, is the usual training here; override ``train`` to change it.
"""

from hosts.learning.methods.own import OwnMethod
from hosts.learning.methods.updates import average

Q = 0.5  # 0: federated averaging


class Fair(OwnMethod):
    """Weights of samples times loss to the power of ``Q``."""

    def combine(self, state, updates):
        """Return the weighted mean of the members' states."""
        return average([u.state for u in updates], [u.samples * (u.loss + 1e-6) ** Q for u in updates])
