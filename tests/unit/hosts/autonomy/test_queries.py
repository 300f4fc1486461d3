"""A query that finds its own way: the model that is expected to answer soonest, of those that have what is needed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hosts.autonomy.queries import ANSWER_S, TRIES, ask_straight, choices, offers
from hosts.errors import TerminalRefused
from hosts.process.config import NodeSpec
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.aats.probe import Hosting, Probe, ProbeReply
from packets.errors import RequestTimeout
from packets.messages import Ack, Answer, Ask, Busy, Message, Need, Refused, State, decode_message, encode_message
from packets.wire import Flag, Header, PacketType
from tests.autonomy import the_task
from topologies.plan import HostPlan

MEMBERS = [NodeSpec(name=f"mdfp{n}", role="mdfp", kas=n, index=n, address=f"10.{n}.1.1") for n in range(1, 7)]
QUESTION = Ask(task="digits", sample=[1.0])
RNG = random.Random(1)
Say = Callable[[Ask], Message | None]


class Mdfps:
    """Stands for the network: MDFPs by address, each with its models, and what it says to a question."""

    def __init__(self, models: dict[int, list[Hosting]], says: dict[int, Say] | None = None) -> None:
        self.models, self.says = models, says or {}
        self.asked: list[int] = []

    def request(self, payload: bytes, *, to: str, type: PacketType, timeout_s: float, object_id: int) -> Any:
        number, message = int(to.split(".")[1]), decode_message(payload)
        if number not in self.models:
            raise RequestTimeout(f"{to} did not answer")
        if isinstance(message, Probe):
            assert type is PacketType.PROBE
            about = {"name": f"mdfp{number}", "role": "mdfp", "kas": number, "task": "digits"}
            return Header(type=type, flags=Flag.REPLY), encode_message(ProbeReply(**about, models=self.models[number]))
        assert type is PacketType.QUERY and timeout_s == ANSWER_S and object_id == self.models[number][0].label
        assert isinstance(message, Ask)
        self.asked.append(number)
        said = self.says.get(number, lambda ask: Answer(answer="3", confidence=0.9, answered_by=f"mdfp{number}"))
        reply = said(message)
        if reply is None:
            raise RequestTimeout(f"{to} did not answer")
        return Header(type=PacketType.RESPONSE, flags=Flag.REPLY), encode_message(reply)


def model(service_ms: float = 1.0, **more: Any) -> list[Hosting]:
    return [Hosting(**{"label": 77, "task": "digits", "service_ms": service_ms, "accuracy": {"broad": 0.8}} | more)]


def asker(network: Mdfps) -> Terminal:
    plan = HostPlan(
        name="asker1", role="query_owner", kas=1, address="10.1.1.9", mac="02:00:00:00:00:01", switch="s", port=1
    )
    return Terminal(
        plan=plan, task=the_task(), network=network, emit=lambda kind, **data: None, submit=inline,  # type: ignore[arg-type]
        meter=Meter(1.0, lambda: 0.0), folder=Path("unused"), members=MEMBERS,
    )  # fmt: skip


def test_the_one_that_answers_soonest_is_asked_straight() -> None:
    network = Mdfps({1: model(400.0), 2: model(90.0, in_flight=9), 3: model(200.0)})
    reply = ask_straight(asker(network), QUESTION, RNG)
    assert isinstance(reply, Answer) and reply.answered_by == "mdfp3" and network.asked == [3]


@pytest.mark.parametrize(
    ("need", "who"),
    [
        (Need(), [1, 2, 3, 4]),
        (Need(broad_accuracy=0.9), [2]),
        (Need(expert_group="digit 3", expert_accuracy=0.5), [3]),
        (Need(local=True), [1]),
        (Need(deadline_ms=500), [1, 2, 3]),
    ],
)
def test_only_who_has_what_is_needed_is_chosen(need: Need, who: list[int]) -> None:
    models = {
        1: model(100.0), 2: model(200.0, accuracy={"broad": 0.95}), 3: model(300.0, accuracy={"digit 3": 0.6}),
        4: model(5000.0), 5: model(task="digits/cached"),
    }  # fmt: skip
    found = choices(offers(asker(Mdfps(models)), "digits", need, RNG), need)
    assert [int(c.address.split(".")[1]) for c in found] == who


BUSY = Busy(reason="full", state=State(label=77))


@pytest.mark.parametrize("said", [None, BUSY, Refused(reason="no")])
def test_where_one_does_not_answer_the_next_is_asked(said: Message | None) -> None:
    network = Mdfps({1: model(100.0), 2: model(300.0)}, {1: lambda ask: said})
    reply = ask_straight(asker(network), QUESTION, RNG)
    assert isinstance(reply, Answer) and network.asked == [1, 2]


def test_where_none_answers_the_last_reason_is_told() -> None:
    network = Mdfps({n: model(100.0 * n) for n in range(1, 7)}, {n: lambda ask: BUSY for n in range(1, 7)})
    with pytest.raises(TerminalRefused, match="none of 4 models asked has answered: full"):
        ask_straight(asker(network), QUESTION, RNG)
    assert len(network.asked) == TRIES
    with pytest.raises(TerminalRefused, match="no MDFP that answered has a model"):
        ask_straight(asker(Mdfps({})), QUESTION, RNG)


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({"broad_accuracy": 0.9}, "no model heard of has broad from 0.9: the best on offer is 0.850 at mdfp2; ask for"),
        ({"expert_group": "digit 3", "expert_accuracy": 0.999}, "has digit 3 from 0.999: .* is 0.700 at mdfp1"),
        ({"expert_group": "digit 4", "expert_accuracy": 0.5}, "has digit 4 from 0.5: the best on offer is 0.000"),
        ({"broad_accuracy": 0.8, "expert_group": "digit 3", "expert_accuracy": 0.6}, "no one model heard of has broad"),
        ({"deadline_ms": 100}, "answer within 100 ms: the best on offer is .* ms at mdfp1; give it more time"),
    ],
)
def test_where_none_will_do_the_best_on_offer_is_told(need: dict[str, Any], words: str) -> None:
    network = Mdfps(
        {1: model(400.0, accuracy={"broad": 0.7, "digit 3": 0.7}), 2: model(900.0, accuracy={"broad": 0.85})}
    )
    with pytest.raises(TerminalRefused, match=words) as caught:
        ask_straight(asker(network), Ask(task="digits", sample=[1.0], need=Need(**need)), RNG)
    assert "\n" not in str(caught.value) and not network.asked


def test_an_answer_that_goes_elsewhere_is_acknowledged() -> None:
    network = Mdfps({1: model()}, {1: lambda ask: Ack()})
    assert isinstance(ask_straight(asker(network), QUESTION, RNG), Ack)
