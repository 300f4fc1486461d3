"""Who holds an object says where it trains next: it asks, thinks while the model trains, proposes, and launches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.msgpack import encode

from controller.values.distributed import Question
from hosts.learning.task import NodeData, model_to_bytes, partition, samples_to_bytes
from hosts.roles import ROLES
from packets.distributed.asking import AskBrief, AskOffers, AskPlan, Briefed, Offers, Planned, Propose
from packets.distributed.gossip import Digest, News
from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    Message,
    OrderRequest,
    Refused,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    VisitDone,
    decode_message,
    encode_message,
)
from packets.wire import PacketType
from tests.helpers import wait_until
from tests.unit.hosts.gossip.test_house import REQUEST, brief, house
from tests.unit.hosts.test_roles import JOB, Bench, Script, arrived, ordered, question, the_task

DCC = (DCC_ADDRESS, 55831)


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, NodeData]]:
    yield partition(the_task(), ["me", "other"], seed=1)


@pytest.fixture(scope="module")
def model() -> bytes:
    return model_to_bytes(the_task().new_model(3))


def bench(role: str, script: Script, folder: Path, data: NodeData | None = None) -> Bench:
    """A terminal of a distributed K-AS."""
    found = Bench(role, script, folder, data)
    found.terminal.house = house()
    found.role = ROLES[role](found.terminal)
    return found


def asked(here: Bench) -> list[str]:
    return [type(m).__name__ for _, m in here.network.asked]


def test_a_data_node_thinks_while_it_trains_and_proposes_before_it_launches(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    script: Script = {
        OrderRequest: ordered("train", data_node="me"), VisitDone: Ack(), AskBrief: Briefed(brief=brief(kas=1)),
        Propose: Ack(),
    }  # fmt: skip
    here = bench("data", script, tmp_path, parts["me"])
    here.role.object_arrived(arrived(model))
    (question_,) = here.network.messages(AskBrief)
    (said,) = here.network.messages(Propose)
    assert (question_.object_id, question_.visit) == (said.object_id, said.visit) == (JOB, 3)
    assert said.handles and here.network.sent[0].visit == 3
    assert asked(here)[-1] == "Propose", "it is launched last"


def test_an_mpvu_proposes_after_its_verdict(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    script: Script = {
        OrderRequest: lambda q: ordered("keep_test_sample" if q.object_id == 800 else "verify")(q),
        Verdict: VerdictReply(accepted=True), AskBrief: Briefed(brief=brief(kas=1)), Propose: Ack(),
    }  # fmt: skip
    here = bench("mpvu", script, tmp_path)
    payload = samples_to_bytes(parts["me"].test[0])
    here.role.object_arrived(arrived(payload, object_id=800, visit=0, kind=PacketType.DATA_SHARD))
    here.role.object_arrived(arrived(model))
    assert asked(here)[-3:] == ["Verdict", "AskBrief", "Propose"] and len(here.network.sent) == 1


def test_an_owner_proposes_the_first_stop(tmp_path: Path) -> None:
    script: Script = {
        Submit: SubmitReply(object_id=JOB, admitted=True), AskBrief: Briefed(brief=brief(kas=1)), Propose: Ack(),
    }  # fmt: skip
    here = bench("model_owner", script, tmp_path)
    here.role.command({"op": "submit", "spec": {"task": "vignettes"}})
    assert asked(here) == ["Submit", "AskBrief", "Propose"] and here.network.messages(Propose)[0].visit == 0
    assert [s.visit for s in here.network.sent] == [0]


@pytest.mark.parametrize(
    "answer", [Briefed(), Refused(reason="the job is over"), Ack(), Briefed(brief=b"rubbish"), None], ids=str
)
def test_whatever_it_is_told_the_object_goes_on(tmp_path: Path, answer: Message | None) -> None:
    script: Script = {Submit: SubmitReply(object_id=JOB, admitted=True), Propose: Ack()}
    if answer is not None:
        script[AskBrief] = answer
    here = bench("model_owner", script, tmp_path)
    here.role.command({"op": "submit", "spec": {"task": "vignettes"}})
    assert not here.network.messages(Propose) and len(here.network.sent) == 1


def test_a_proposal_that_is_refused_is_told_and_the_object_goes_on(tmp_path: Path) -> None:
    script: Script = {
        Submit: SubmitReply(object_id=JOB, admitted=True), AskBrief: Briefed(brief=brief(kas=1)),
        Propose: Refused(reason="you do not hold it"),
    }  # fmt: skip
    here = bench("model_owner", script, tmp_path)
    here.role.command({"op": "submit", "spec": {"task": "vignettes"}})
    assert "you do not hold it" in here.data_of("warning")["text"] and len(here.network.sent) == 1


def tell(here: Bench, message: Message, peer: tuple[str, int] = DCC, kind: Any = PacketType.ANNOUNCE) -> Message:
    before = len(here.network.replied)
    here.role.message_arrived(question(kind, transfer_id=before + 77), encode_message(message), peer)
    wait_until(lambda: len(here.network.replied) > before, 5.0, "an answer")
    return decode_message(here.network.replied[-1][1])


def test_its_control_centre_asks_it_and_nobody_else_does(tmp_path: Path) -> None:
    here = bench("model_owner", {}, tmp_path)
    offers, plan = (
        AskOffers(object_id=7, question=encode(Question(request=REQUEST))),
        AskPlan(object_id=7, brief=brief(kas=1)),
    )
    assert isinstance(tell(here, offers), Offers)
    planned = tell(here, plan)
    assert isinstance(planned, Planned) and planned.handles
    assert isinstance(tell(here, AskPlan(object_id=7, brief=b"rubbish")), Refused)
    for message in (offers, plan):
        assert isinstance(tell(here, message, ("10.1.1.3", 55831)), Refused)


def test_a_terminal_of_another_kind_answers_none_of_it(tmp_path: Path) -> None:
    here = Bench("model_owner", {}, tmp_path)
    assert isinstance(tell(here, AskPlan(object_id=7, brief=brief(kas=1))), Refused)
    assert isinstance(tell(here, Digest(), ("10.1.1.3", 55831), PacketType.PROBE), Refused)


def test_gossip_goes_to_whoever_gossips_here(tmp_path: Path) -> None:
    here = bench("model_owner", {}, tmp_path)
    heard: list[tuple[object, str]] = []
    here.role.gossiped = lambda talk, address: heard.append((talk, address)) or News(more=True)  # type: ignore[func-returns-value]
    assert tell(here, Digest(), ("10.1.1.3", 55831), PacketType.PROBE) == News(more=True)
    assert heard == [(Digest(), "10.1.1.3")]
