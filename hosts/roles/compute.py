"""Compute facility: models train here on data that is asked for per visit and dropped after it, or lead a group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hosts.errors import HostError
from hosts.learning.compress import encode, travelling
from hosts.learning.errors import LearningError
from hosts.methods import central, federated, gossip, own, split
from hosts.methods.group import Group, Led
from hosts.roles.base import Recent
from hosts.roles.trainer import Trainer
from hosts.terminal.dcc_line import PATIENT
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import Ack, Order, VisitDone
from packets.transport import ReceivedObject

LEADS: dict[str, Callable[[Group], Led]] = {
    "federate": federated.lead,
    "central": central.lead,
    "gossip": gossip.lead,
    "split": split.lead,
    "own": own.lead,
}


class ComputeFacility(Trainer):
    """Trains visits whose order names a data node, leads rounds whose order names members; holds no data of its own."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {action: partial(self._lead, lead) for action, lead in LEADS.items()}
        self._kept: Recent[dict[str, object]] = Recent()

    def _lead(self, lead: Callable[[Group], Led], obj: ReceivedObject, order: Order) -> None:
        """Lead a group for the rounds of one visit, report, let the model go on; as it came when that fails."""
        try:
            kept = self._kept.get(obj.object_id, {})
            group = Group(self.terminal, self.exchange, obj, order, kept)
            led = lead(group)
            payload, _ = encode(led.state, travelling(order.compression))
        except (LearningError, DaitnError, HostError) as error:
            self.give_up_visit(obj, order, " ".join(str(error).split()), lost=False)
            return
        self._kept.note(obj.object_id, kept)
        self._tell_led(obj, order, led)
        self.terminal.launch(self.next_launch(obj, payload))

    def _tell_led(self, obj: ReceivedObject, order: Order, led: Led) -> None:
        terminal = self.terminal
        terminal.emit(
            "visit.trained", object_id=obj.object_id, visit=obj.visit, node=terminal.name, facility=terminal.name,
            data_node=terminal.name, kas=terminal.plan.kas, loss=led.loss, samples=led.samples, epochs=order.epochs,
            seconds=led.seconds, members=len(order.members),
        )  # fmt: skip
        done = VisitDone(
            name=terminal.name, object_id=obj.object_id, visit=obj.visit, data_node=terminal.name, samples=led.samples,
            epochs=order.epochs, loss=led.loss, train_s=led.seconds,
        )  # fmt: skip
        terminal.dcc.ask(done, Ack, object_id=obj.object_id, attempts=PATIENT)
