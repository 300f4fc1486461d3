"""Every role's decisions, with a fake network in place of the transport and a script in place of the DCC."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save

from controller.values.metrics import OwnMetric
from hosts.errors import BadCommand, DccRefused, HostError, TerminalRefused
from hosts.learning.compress import encoding_of, parse_spec
from hosts.learning.methods.updates import between, state_of
from hosts.learning.task import (
    Evaluation,
    LearningError,
    NodeData,
    Task,
    TaskSpec,
    bytes_to_model,
    bytes_to_samples,
    load_task,
    model_to_bytes,
    partition,
    samples_to_bytes,
)
from hosts.roles import ROLES, Role
from hosts.roles import trainer as trainer_module
from hosts.roles.mdfp import Mdfp
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.errors import RequestTimeout, TransportError
from packets.labels import DCC_ADDRESS, class_label, label_address
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Answer,
    Ask,
    AskPart,
    Inquire,
    JobStatus,
    LogPart,
    LogRequest,
    Message,
    Order,
    OrderRequest,
    Refused,
    Returned,
    SendData,
    StreamPart,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    VisitDone,
    decode_message,
    encode_message,
)
from packets.transport import OutgoingObject, ReceivedObject, TransferStats
from packets.wire import Flag, Header, PacketType
from topologies.plan import HostPlan

JOB = 0x123_0100005
Script = dict[type[Message], Callable[[Any], Message] | Message]


class FakeTransfer:
    def __init__(self, error: TransportError | None) -> None:
        self._error = error

    def result(self, timeout_s: float) -> TransferStats:
        if self._error is not None:
            raise self._error
        return TransferStats(
            bytes=1, packets=1, retransmissions=0, seconds=0.1, launch_seconds=0.01, rtt_ms=1.0, goodput_mbps=1.0,
            receiver="10.1.1.9",
        )  # fmt: skip


class FakeNetwork:
    """Stands for the endpoint: answers requests from a script, remembers what was sent; ``broken`` fails launches."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[str, Message]] = []
        self.sent: list[OutgoingObject] = []
        self.replied: list[tuple[PacketType, bytes]] = []
        self.broken: list[TransportError] = []

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        message = decode_message(payload)
        self.asked.append((to, message))
        answer = self.script.get(message.__class__)
        if answer is None:
            raise RequestTimeout(f"{to} did not answer a {message.__class__.__name__}")
        reply = answer if isinstance(answer, Message) else answer(message)
        return Header(type=type, flags=Flag.REPLY), encode_message(reply)

    def send_object(self, obj: OutgoingObject) -> FakeTransfer:
        if self.broken:
            return FakeTransfer(self.broken.pop())
        self.sent.append(obj)
        return FakeTransfer(None)

    def reply(self, header: Header, payload: bytes, peer: tuple[str, int], *, type: PacketType) -> None:
        self.replied.append((type, payload))

    def messages(self, kind: type[Message]) -> list[Any]:
        return [m for _, m in self.asked if isinstance(m, kind)]


class Bench:
    """A role on the bench: fake network, event list, inline work."""

    def __init__(self, role: str, script: Script, folder: Path, data: NodeData | None = None, **plan: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.network = FakeNetwork(script)
        about: dict[str, Any] = {"name": "me", "role": role, "kas": 1, "address": "10.1.1.1", **plan}
        host = HostPlan(mac="02:00:00:00:00:01", switch="k1s1", port=1, **about)
        self.clock = 0.0
        self.terminal = Terminal(
            plan=host, task=the_task(), network=self.network, emit=self._emit, submit=inline,
            meter=Meter(1000.0, lambda: self.clock), folder=folder / "me", data=data,
        )  # fmt: skip
        self.terminal.stopping.set()  # no pauses between attempts
        self.role: Role = ROLES[role](self.terminal)

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def data_of(self, kind: str) -> dict[str, Any]:
        return next(data for k, data in self.events if k == kind)

    def errors(self) -> str:
        return "\n".join(data["text"] for kind, data in self.events if kind == "error")


_TASK: list[Task] = []


def the_task() -> Task:
    if not _TASK:
        torch.set_num_threads(1)
        _TASK.append(load_task(TaskSpec(name="vignettes", train_per_node=64, test_per_node=24)))
    return _TASK[0]


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, NodeData]]:
    yield partition(the_task(), ["me", "other"], seed=1)


@pytest.fixture(scope="module")
def model() -> bytes:
    return model_to_bytes(the_task().new_model(3))


def arrived(
    payload: bytes, *, object_id: int = JOB, visit: int = 2, kind: PacketType = PacketType.MODEL_SHARD
) -> ReceivedObject:
    return ReceivedObject(
        object_id=object_id, type=kind, payload=payload, owner="10.1.9.9", visit=visit, visit_limit=40,
        requirements=None, sender="10.1.1.2", transfer_id=7, seconds=0.5, packets=3, duplicates=0,
    )  # fmt: skip


def ordered(action: str, **more: Any) -> Callable[[OrderRequest], Order]:
    return lambda q: Order(action=action, object_id=q.object_id, visit=q.visit, task="vignettes", **more)


def question(kind: PacketType = PacketType.ANNOUNCE, transfer_id: int = 1) -> Header:
    return Header(type=kind, transfer_id=transfer_id)


PEER = ("10.1.1.2", 55831)


# --- training ---


def test_a_data_node_trains_a_visit_on_its_own_data_and_lets_the_model_go(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    order = ordered("train", data_node="me", epochs=2.0)
    bench = Bench("data", {OrderRequest: order, VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))

    (done,) = bench.network.messages(VisitDone)
    assert (done.object_id, done.visit, done.data_node, done.samples, done.epochs) == (JOB, 2, "me", 64, 2.0)
    assert done.train_s > 0 and done.loss > 0 and not done.problem
    (sent,) = bench.network.sent
    assert (sent.object_id, sent.visit, sent.owner, sent.visit_limit) == (JOB, 3, "10.1.9.9", 40)
    assert sent.payload != model
    bytes_to_model(the_task(), sent.payload)
    assert bench.data_of("visit.trained")["facility"] == "me"
    assert bench.terminal.meter.samples_per_s != 1000.0, "the speed is measured from the visit"


def test_a_journey_repeats_under_its_seed(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    results = []
    for _ in range(2):
        bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
        bench.role.object_arrived(arrived(model))
        results.append(bench.network.sent[0].payload)
    assert results[0] == results[1]


def test_states_are_told_as_they_change(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    states = [data["state"] for kind, data in bench.events if kind == "agent.state"]
    assert states == ["receiving", "idle", "training", "idle", "sending", "idle"]


def test_a_second_copy_of_an_object_changes_nothing(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    bench.role.object_arrived(arrived(model))
    assert len(bench.network.sent) == len(bench.network.messages(OrderRequest)) == 1
    assert "object.duplicate" in bench.kinds()
    bench.role.object_arrived(arrived(model, visit=9))
    assert len(bench.network.sent) == 2, "a later visit of the same object is no duplicate"


def test_bytes_that_are_no_model_are_an_error_and_the_agent_goes_on(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(b"not a model"))
    (done,) = bench.network.messages(VisitDone)
    assert done.lost and done.samples == 0 and "not a model" in done.problem
    assert not bench.network.sent and "not a model" in bench.errors()
    bench.role.object_arrived(arrived(model, visit=3))
    assert len(bench.network.sent) == 1


def test_an_object_without_an_order_is_dropped_with_the_reason(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = Bench("data", {OrderRequest: Refused(reason="no such job")}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    assert "no such job" in bench.errors() and not bench.network.sent


def test_an_order_that_is_not_this_roles_is_an_error(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    bench = Bench("data", {OrderRequest: ordered("verify")}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    assert "'verify'" in bench.errors() and "data terminal" in bench.errors()


def test_a_silent_dcc_is_an_error_and_a_later_copy_is_taken(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = Bench("data", {VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    assert "DCC of K-AS 1 gave no answer" in bench.errors()
    bench.network.script[OrderRequest] = ordered("train", data_node="me")
    bench.role.object_arrived(arrived(model))
    assert len(bench.network.sent) == 1


def test_a_visit_with_impossible_hyper_parameters_lets_the_model_go_as_it_came(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    order = ordered("train", data_node="me", learning_rate=0.0)
    bench = Bench("data", {OrderRequest: order, VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model))
    assert bench.network.sent[0].payload == model
    assert not bench.network.messages(VisitDone)[0].lost


def test_a_launch_is_tried_again(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.terminal.stopping.clear()
    bench.network.broken = [TransportError("nobody answered")]
    bench.role.object_arrived(arrived(model))
    assert len(bench.network.sent) == 1


def test_a_launch_that_never_works_is_an_error(tmp_path: Path, parts: dict[str, NodeData], model: bytes) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.network.broken = [TransportError("nobody answered")] * 9
    bench.role.object_arrived(arrived(model))
    assert "did not leave me" in bench.errors() and "nobody answered" in bench.errors()


def test_an_object_that_has_made_all_its_stops_is_not_launched_again(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = Bench("data", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(model, visit=40))
    assert "limit of 40 stops" in bench.errors() and not bench.network.sent


# --- data node ---


def test_a_data_node_describes_its_data_without_showing_it(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    told = Bench("data", {}, tmp_path, parts["me"]).role.attributes()
    assert told["samples"] == 64 and told["data_may_move"] is False and 0 <= told["quality"] <= 1
    assert sum(told["group_shares"].values()) == pytest.approx(1)
    true = the_task().group_counts(parts["me"].train)
    assert any(abs(told["group_shares"][g] - n / 64) > 1e-6 for g, n in true.items()), "shares are disguised"
    for value in told.values():
        assert isinstance(value, int | float | bool | dict), "numbers and shares only, never samples"
    assert len(encode_message(Refused(reason="x"))) + len(msgspec.msgpack.encode(told)) < 1300, "fits one packet"


def test_both_disjoint_test_samples_go_out_at_the_start(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    numbers = iter((501, 502))
    bench = Bench("data", {AnnounceObject: lambda _: AnnounceReply(object_id=next(numbers))}, tmp_path, parts["me"])
    bench.role.start()
    assert [(m.kind, m.copy) for m in bench.network.messages(AnnounceObject)] == [
        ("test_sample", 0),
        ("test_sample", 1),
    ]
    assert [o.object_id for o in bench.network.sent] == [501, 502]
    assert all(o.type is PacketType.DATA_SHARD for o in bench.network.sent)
    first, second = (bytes_to_samples(the_task(), o.payload) for o in bench.network.sent)
    assert torch.equal(first.inputs, parts["me"].test[0].inputs) and torch.equal(
        second.inputs, parts["me"].test[1].inputs
    )
    assert bench.role.command({"op": "send_test_samples"}) == {"delivered": [0, 1], "failed": {}}
    assert len(bench.network.sent) == 2, "what is there already is not sent again"


def test_a_test_sample_that_found_no_mpvu_is_sent_when_there_is_one(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench = Bench("data", {AnnounceObject: Refused(reason="no MPVU yet")}, tmp_path, parts["me"])
    reply = bench.role.command({"op": "send_test_samples"})
    assert reply["delivered"] == [] and "no MPVU yet" in reply["failed"][0]
    bench.network.script[AnnounceObject] = lambda m: AnnounceReply(object_id=600 + m.copy)
    assert bench.role.command({"op": "send_test_samples"})["delivered"] == [0, 1]


def test_data_that_may_move_is_sent_when_the_dcc_has_ordered_it(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench = Bench("data", {AnnounceObject: AnnounceReply(object_id=77)}, tmp_path, parts["me"], data_may_move=True)
    ask = encode_message(SendData(name="c1", for_object=JOB, visit=2, task="vignettes"))
    bench.role.message_arrived(question(), ask, PEER)
    assert [decode_message(p) for _, p in bench.network.replied] == [Ack()]
    assert bench.network.messages(AnnounceObject)[0].for_object == JOB
    (sent,) = bench.network.sent
    assert sent.object_id == 77 and len(bytes_to_samples(the_task(), sent.payload)) == 64


def test_a_repeated_question_is_answered_again_and_worked_on_once(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench = Bench("data", {AnnounceObject: AnnounceReply(object_id=77)}, tmp_path, parts["me"], data_may_move=True)
    ask = encode_message(SendData(name="c1", for_object=JOB, visit=2, task="vignettes"))
    for _ in range(3):
        bench.role.message_arrived(question(transfer_id=5), ask, PEER)
    assert len(bench.network.replied) == 3 and len(bench.network.sent) == 1


@pytest.mark.parametrize(
    ("may_move", "script", "reason"),
    [
        (True, {AnnounceObject: Refused(reason="no visit of this object is ordered")}, "no order"),
        (True, {}, "no order"),
        (False, {AnnounceObject: AnnounceReply(object_id=77)}, "may not leave"),
    ],
)
def test_data_stays_without_an_order_or_leave(
    tmp_path: Path, parts: dict[str, NodeData], may_move: bool, script: Script, reason: str
) -> None:
    bench = Bench("data", script, tmp_path, parts["me"], data_may_move=may_move)
    ask = encode_message(SendData(name="c1", for_object=JOB, visit=2, task="vignettes"))
    bench.role.message_arrived(question(), ask, PEER)
    reply = decode_message(bench.network.replied[0][1])
    assert isinstance(reply, Refused) and reason in reply.reason
    assert not bench.network.sent


def test_bytes_that_are_no_message_get_an_error_packet(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench = Bench("data", {}, tmp_path, parts["me"])
    bench.role.message_arrived(question(), b"\xff\x00junk", PEER)
    assert bench.network.replied[0][0] is PacketType.ERROR
    assert "packet.refused" in bench.kinds()
    bench.role.message_arrived(Header(type=PacketType.ERROR, transfer_id=2), b"\xff", PEER)
    bench.role.message_arrived(Header(type=PacketType.PROBE, transfer_id=4), b"", (DCC_ADDRESS, 55831))  # a knock
    bench.role.message_arrived(Header(type=PacketType.ANNOUNCE, flags=Flag.REPLY, transfer_id=3), b"\xff", PEER)
    assert len(bench.network.replied) == 1, "errors and late replies are not answered"


def test_a_data_node_without_data_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no data"):
        Bench("data", {}, tmp_path)


# --- compute facility ---


def gathering(script: Script, tmp_path: Path) -> Bench:
    def order(q: OrderRequest) -> Order:
        if q.object_id == JOB:
            return ordered("train", data_node="other", data_address="10.1.1.7")(q)
        return ordered("use_data", for_object=JOB)(q)

    return Bench("compute", {OrderRequest: order, VisitDone: Ack(), SendData: Ack(), **script}, tmp_path)


def test_a_facility_sends_for_data_trains_on_it_and_drops_it(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = gathering({}, tmp_path)
    bench.role.object_arrived(arrived(model))
    to, asked = next((to, m) for to, m in bench.network.asked if isinstance(m, SendData))
    assert to == "10.1.1.7" and asked == SendData(name="me", for_object=JOB, visit=2, task="vignettes")
    assert not bench.network.sent and bench.role.waiting == [JOB]  # type: ignore[attr-defined]

    data = samples_to_bytes(parts["other"].train)
    bench.role.object_arrived(arrived(data, object_id=900, visit=0, kind=PacketType.DATA_SHARD))
    trained = bench.data_of("visit.trained")
    assert (trained["facility"], trained["data_node"], trained["samples"], trained["visit"]) == ("me", "other", 64, 2)
    assert bench.network.sent[0].object_id == JOB and bench.network.sent[0].visit == 3
    assert bench.role.waiting == []  # type: ignore[attr-defined]


def test_training_at_a_facility_is_the_same_as_at_the_data_node(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    facility = gathering({}, tmp_path)
    facility.role.object_arrived(arrived(model))
    facility.role.object_arrived(arrived(samples_to_bytes(parts["other"].train), object_id=900, visit=0))
    host = Bench("data", {}, tmp_path, parts["other"])
    host.terminal.plan = msgspec.structs.replace(host.terminal.plan, name="other")
    host.network.script |= {OrderRequest: ordered("train", data_node="other"), VisitDone: Ack()}
    host.role.object_arrived(arrived(model))
    assert host.network.sent[0].payload == facility.network.sent[0].payload


@pytest.mark.parametrize(
    ("answer", "reason"), [(Refused(reason="may not leave"), "may not leave"), (None, "not answer")]
)
def test_data_that_does_not_come_lets_the_model_go_untrained(
    tmp_path: Path, model: bytes, answer: Message | None, reason: str
) -> None:
    bench = gathering({}, tmp_path)
    bench.network.script.pop(SendData)
    if answer:
        bench.network.script[SendData] = answer
    bench.role.object_arrived(arrived(model))
    (done,) = bench.network.messages(VisitDone)
    assert done.samples == 0 and reason in done.problem and done.data_node == "other" and not done.lost
    assert bench.network.sent[0].payload == model and bench.network.sent[0].visit == 3


def test_data_that_is_late_lets_the_model_go(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "DATA_WAIT_S", 0.0)
    bench = gathering({}, tmp_path)
    bench.role.object_arrived(arrived(model))
    bench.role.tick()
    assert bench.network.sent[0].payload == model
    bench.role.object_arrived(arrived(samples_to_bytes(parts["other"].train), object_id=900, visit=0))
    assert "does not wait here" in bench.errors() and len(bench.network.sent) == 1


def test_bad_data_lets_the_model_go_untrained(tmp_path: Path, model: bytes) -> None:
    bench = gathering({}, tmp_path)
    bench.role.object_arrived(arrived(model))
    bench.role.object_arrived(arrived(b"no samples", object_id=900, visit=0))
    assert bench.network.sent[0].payload == model
    assert "bad data of other" in bench.network.messages(VisitDone)[0].problem


def test_a_facility_ordered_to_use_own_data_has_none(tmp_path: Path, model: bytes) -> None:
    bench = Bench("compute", {OrderRequest: ordered("train", data_node="me"), VisitDone: Ack()}, tmp_path)
    bench.role.object_arrived(arrived(model))
    assert "no data of its own" in bench.errors() and bench.network.sent[0].payload == model


# --- MPVU ---


def verifying(tmp_path: Path, parts: dict[str, NodeData], accepted: list[bool], **words: Any) -> Bench:
    verdicts = iter(accepted)

    def order(q: OrderRequest) -> Order:
        if q.object_id == JOB:
            return ordered("verify", expert_group="cardiology", **words)(q)
        return ordered("keep_test_sample", data_node="me" if q.object_id == 801 else "other")(q)

    script: Script = {OrderRequest: order, Verdict: lambda _: VerdictReply(accepted=next(verdicts), reason="because")}
    bench = Bench("mpvu", script, tmp_path)
    for object_id, node in ((801, "me"), (802, "other")):
        payload = samples_to_bytes(parts[node].test[0])
        bench.role.object_arrived(arrived(payload, object_id=object_id, visit=0, kind=PacketType.DATA_SHARD))
    return bench


def test_an_mpvu_measures_on_the_samples_of_all_data_nodes(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = verifying(tmp_path, parts, [True])
    assert bench.role.attributes()["test_samples"] == 48 and bench.terminal.changed.is_set()
    again = arrived(samples_to_bytes(parts["me"].test[0]), object_id=803, visit=0, kind=PacketType.DATA_SHARD)
    bench.role.object_arrived(again)
    assert bench.role.attributes()["test_samples"] == 48, "the same sample sent again counts once"
    bench.role.object_arrived(arrived(model))
    (verdict,) = bench.network.messages(Verdict)
    assert verdict.samples == 48 and 0 <= verdict.broad <= 1 and set(verdict.per_group) <= set(the_task().groups)
    seen = bench.data_of("visit.verified")
    assert seen["accepted"] and seen["reason"] == "because" and seen["broad"] == verdict.broad
    assert bench.network.sent[0].payload == model and bench.network.sent[0].visit == 3


def test_a_rejected_visit_is_rolled_back_to_the_last_accepted_state(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = verifying(tmp_path, parts, [True, False, True])
    worse, better = (model_to_bytes(the_task().new_model(n)) for n in (8, 9))
    bench.role.object_arrived(arrived(model, visit=2))
    bench.role.object_arrived(arrived(worse, visit=4))
    bench.role.object_arrived(arrived(better, visit=6))
    assert [o.payload for o in bench.network.sent] == [model, model, better]
    assert [o.visit for o in bench.network.sent] == [3, 5, 7]


def test_part_of_a_visit_is_kept_where_that_measures_better(
    tmp_path: Path, parts: dict[str, NodeData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models that each know half: what lies between them is measured, told with its share, and sent on."""
    accuracy = {0.0: 0.5, 1.0: 0.55, 0.75: 0.6, 0.5: 0.8, 0.25: 0.7}  # at each share of the way
    first, second = the_task().new_model(8), the_task().new_model(9)
    ends = [float(next(iter(m.parameters())).detach().flatten()[0]) for m in (first, second)]

    def evaluate(_: object, model: torch.nn.Module, samples: object) -> Evaluation:
        share = (float(next(iter(model.parameters())).detach().flatten()[0]) - ends[0]) / (ends[1] - ends[0])
        broad = accuracy[min(accuracy, key=lambda known: abs(known - share))]
        return Evaluation(broad=broad, per_group={"cardiology": broad}, samples=48)

    monkeypatch.setattr(type(the_task()), "evaluate", evaluate)
    bench = verifying(tmp_path, parts, [True, True, False], merge=[0.75, 0.5, 0.25])
    for visit, model in ((2, first), (4, second), (6, second)):
        bench.role.object_arrived(arrived(model_to_bytes(model), visit=visit))
    whole, merged, _ = bench.network.messages(Verdict)
    assert (whole.share, whole.whole, whole.broad) == (1.0, {}, 0.5), "nothing accepted before: as it came"
    assert (merged.share, merged.broad, merged.whole) == (0.5, 0.8, {"cardiology": 0.55})
    sent = [o.payload for o in bench.network.sent]
    halfway = between(state_of(first), state_of(second), 0.5)
    assert sent[1] == sent[2] == save(halfway), "kept, and what a later rejection goes back to"


def test_with_nothing_accepted_yet_a_rejected_model_goes_on(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = verifying(tmp_path, parts, [False])
    bench.role.object_arrived(arrived(model))
    assert bench.network.sent[0].payload == model and "warning" in bench.kinds()


def test_a_model_that_arrives_broken_at_the_mpvu_is_replaced_by_its_accepted_state(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = verifying(tmp_path, parts, [True, False])
    bench.role.object_arrived(arrived(model, visit=2))
    bench.role.object_arrived(arrived(b"broken", visit=4))
    assert [o.payload for o in bench.network.sent] == [model, model]
    assert bench.network.messages(Verdict)[1].samples == 0 and "rolling back" in bench.errors()


def test_a_broken_model_with_no_accepted_state_is_lost(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench = verifying(tmp_path, parts, [])
    bench.network.script[VisitDone] = Ack()
    bench.role.object_arrived(arrived(b"broken"))
    assert bench.network.messages(VisitDone)[0].lost and not bench.network.sent


def test_an_mpvu_without_samples_lets_the_model_go(tmp_path: Path, model: bytes) -> None:
    bench = Bench("mpvu", {OrderRequest: ordered("verify"), VisitDone: Ack()}, tmp_path)
    bench.role.object_arrived(arrived(model))
    assert bench.network.sent[0].payload == model and "test samples" in bench.network.messages(VisitDone)[0].problem


# --- MDFP and query owner ---


def first_reply(bench: Bench) -> tuple[PacketType, bytes]:
    """What a thread of the role's own sent."""
    end = time.monotonic() + 5.0
    while not bench.network.replied and time.monotonic() < end:
        time.sleep(0.005)
    return bench.network.replied[0]


def test_an_mdfp_reports_metrics_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def power(about):\n    return 20 + about['kas'] + 180 * about['load']\n")
    assert "metrics" not in Bench("mdfp", {}, tmp_path).role.attributes(), "none is declared"
    bench = Bench("mdfp", {}, tmp_path)
    bench.terminal.metrics = {
        "power_w": OwnMetric(source=f"{tmp_path / 'mine.py'}:power", category="computing", best=20.0, worst=200.0),
        "broken": OwnMetric(source=f"{tmp_path / 'mine.py'}:none", category="service", best=1.0, worst=0.0),
    }
    role = Mdfp(bench.terminal)
    assert role.attributes()["metrics"] == {}
    role.metrics.round()
    role.metrics.end()
    assert role.attributes()["metrics"] == {"power_w": 21.0}
    [told] = [data for kind, data in bench.events if kind == "warning"]
    assert told["node"] == "me" and "me: metric broken: " in told["text"]


def test_an_mdfp_loads_a_model_says_so_and_answers(tmp_path: Path, model: bytes) -> None:
    bench = Bench("mdfp", {OrderRequest: ordered("deploy", accuracy={"broad": 0.9})}, tmp_path)
    assert bench.role.attributes()["models"] == []
    bench.role.object_arrived(arrived(model))
    (said,) = bench.role.attributes()["models"]
    assert (said["task"], said["accuracy"]) == ("vignettes", {"broad": 0.9}) and bench.terminal.changed.is_set()
    assert bench.data_of("model.deployed") == {
        "object_id": JOB, "node": "me", "task": "vignettes", "accuracy": {"broad": 0.9},
    }  # fmt: skip
    sample, _ = the_task().sample_of("cardiology", random.Random(1))
    bench.role.message_arrived(question(PacketType.QUERY), encode_message(Ask(task="vignettes", sample=sample)), PEER)
    kind, payload = first_reply(bench)
    answer = decode_message(payload)
    assert kind is PacketType.RESPONSE and isinstance(answer, Answer)
    expected, confidence = the_task().ask(bytes_to_model(the_task(), model), sample)
    assert (answer.answer, answer.answered_by, answer.model_accuracy) == (expected, "me", {"broad": 0.9})
    assert answer.confidence == pytest.approx(confidence) and bench.role.attributes()["latency_ms"] > 0


def test_an_mdfp_answers_a_stream_part_by_part_as_its_model_does(tmp_path: Path, model: bytes) -> None:
    bench = Bench("mdfp", {OrderRequest: ordered("deploy")}, tmp_path)
    bench.role.object_arrived(arrived(model))
    rng = random.Random(1)
    samples = [the_task().sample_of("", rng)[0] for _ in range(10)] + [[1.0]]
    for number in (0, 1, 0):
        ask = AskPart(task="vignettes", samples=samples[8 * number : 8 * number + 8], stream=7, total=11, size=8,
                      number=number)  # fmt: skip
        bench.role.message_arrived(question(PacketType.QUERY, 20 + number), encode_message(ask), PEER)
        until = time.monotonic() + 5.0
        while len(bench.network.replied) <= number and time.monotonic() < until:
            time.sleep(0.005)
    parts = [decode_message(payload) for _, payload in bench.network.replied]
    assert [p.number for p in parts if isinstance(p, StreamPart)] == [0, 1, 0] and parts[0] == parts[2]
    given = [g for p in parts[:2] if isinstance(p, StreamPart) for g in p.answers]
    loaded = bytes_to_model(the_task(), model)
    assert [g.answer for g in given[:10]] == [the_task().ask(loaded, sample)[0] for sample in samples[:10]]
    assert "takes 12" in given[10].refused, "what is no sample spoils no other"


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (Ask(task="elsewhere", sample=[1.0]), "hosts no model"),
        (Ask(task="vignettes", sample=[1.0]), "takes 12"),
        (Ask(task="vignettes", sample=[1e9] * 12), "finding numbers"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(tmp_path: Path, model: bytes, ask: Ask, reason: str) -> None:
    bench = Bench("mdfp", {OrderRequest: ordered("deploy")}, tmp_path)
    bench.role.object_arrived(arrived(model))
    bench.role.message_arrived(question(PacketType.QUERY), encode_message(ask), PEER)
    reply = decode_message(first_reply(bench)[1])
    assert isinstance(reply, Refused) and reason in reply.reason


def test_a_query_goes_to_the_class_of_models_and_its_answer_is_checked(tmp_path: Path) -> None:
    answer = Answer(answer="angina", confidence=0.9, answered_by="mdfp1")
    bench = Bench("query_owner", {Ask: answer}, tmp_path)
    reply = bench.role.command({"op": "query", "task": "vignettes", "group": "cardiology"})
    to, _ = bench.network.asked[0]
    assert to == label_address(class_label("vignettes"))
    assert reply["answer"] == "angina" and reply["answered_by"] == "mdfp1" and reply["latency_ms"] >= 0
    cardiology = the_task().groups.index("cardiology")
    assert int(the_task().group_of[the_task().labels.index(reply["expected"])]) == cardiology
    assert bench.kinds()[0] == "query.sent" and bench.data_of("query.answered")["id"] == reply["id"]


def test_a_query_with_an_own_sample(tmp_path: Path) -> None:
    bench = Bench("query_owner", {Ask: Answer(answer="a", confidence=1.0, answered_by="m")}, tmp_path)
    assert bench.role.command({"op": "query", "sample": [1, 2, 3]})["expected"] == ""
    assert bench.network.messages(Ask)[0].sample == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ({"group": "astrology"}, "cardiology"),
        ({"sample": ["a"]}, "list of numbers"),
        ({"sample": [0.0] * 5000}, "takes 4096"),
    ],
)
def test_a_query_that_makes_no_sense_is_a_bad_command(tmp_path: Path, command: dict[str, Any], hint: str) -> None:
    bench = Bench("query_owner", {}, tmp_path)
    with pytest.raises(BadCommand, match=hint):
        bench.role.command({"op": "query", **command})


def test_a_refused_query_names_the_reason(tmp_path: Path) -> None:
    bench = Bench("query_owner", {Ask: Refused(reason="no model of this class")}, tmp_path)
    with pytest.raises(TerminalRefused, match="no model of this class"):
        bench.role.command({"op": "query", "group": ""})


# --- model owner ---

SPEC = {"task": "vignettes", "broad_accuracy": 0.8, "expert_group": "cardiology", "expert_accuracy": 0.95, "seed": 4}


def owning(script: Script, tmp_path: Path) -> Bench:
    return Bench("model_owner", {Submit: SubmitReply(object_id=JOB, admitted=True), **script}, tmp_path)


def test_an_admitted_job_is_launched_fresh_and_seeded(tmp_path: Path) -> None:
    bench = owning({}, tmp_path)
    reply = bench.role.command({"op": "submit", "spec": SPEC})["reply"]
    assert reply["admitted"] and reply["object_id"] == JOB
    (sent,) = bench.network.sent
    assert sent.payload == model_to_bytes(the_task().new_model(4)) and sent.visit == 0 and sent.owner == "10.1.1.1"
    assert sent.requirements is not None and sent.requirements.broad_accuracy == 8000
    assert bench.network.messages(Submit)[0].spec.model_bytes == len(sent.payload)
    assert sent.visit_limit > 3 * 16


def test_a_rejected_job_is_not_launched(tmp_path: Path) -> None:
    no = SubmitReply(object_id=0, admitted=False, reasons=["too much"], nearest={"broad_accuracy": 0.7})
    bench = owning({Submit: no}, tmp_path)
    assert bench.role.command({"op": "submit", "spec": SPEC})["reply"]["reasons"] == ["too much"]
    assert not bench.network.sent


@pytest.mark.parametrize(
    ("spec", "hint"),
    [(None, "job spec"), ({"task": "vignettes", "broad": 1}, "broad"), ({"task": "chess"}, "vignettes")],
)
def test_a_bad_spec_is_a_bad_command(tmp_path: Path, spec: Any, hint: str) -> None:
    with pytest.raises(BadCommand, match=hint):
        owning({}, tmp_path).role.command({"op": "submit", "spec": spec})


def test_a_dcc_without_an_answer_reaches_the_person(tmp_path: Path) -> None:
    with pytest.raises(DccRefused, match="not today"):
        owning({Submit: Refused(reason="not today")}, tmp_path).role.command({"op": "submit", "spec": SPEC})


def test_a_model_comes_home_with_its_whole_log_and_is_deployed(tmp_path: Path, model: bytes) -> None:
    log = [{"visit": n, "node": f"h1{n}", "broad": n / 10} for n in range(5)]
    home = ordered("home", log=log[:2], log_length=5, accuracy={"broad": 0.85})
    rest: Callable[[LogRequest], LogPart] = lambda m: LogPart(entries=log[m.first : m.first + 2])  # noqa: E731
    script: Script = {
        OrderRequest: home,
        LogRequest: rest,
        Returned: Ack(),
        AnnounceObject: AnnounceReply(object_id=99),
    }
    bench = owning(script, tmp_path)
    bench.role.command({"op": "submit", "spec": SPEC})
    with pytest.raises(BadCommand, match="not home yet"):
        bench.role.command({"op": "deploy", "object_id": JOB})
    bench.role.object_arrived(arrived(model, visit=14))

    for folder in (tmp_path / "me", tmp_path / "me" / f"{JOB:x}"):
        assert (folder / "model.safetensors").read_bytes() == model
        assert msgspec.json.decode((folder / "training-log.json").read_bytes()) == log
        assert not list(folder.glob("*.partial"))
    assert bench.network.messages(Returned)[0].size_bytes == len(model)
    assert bench.data_of("object.returned")["bytes"] == len(model)

    assert bench.role.command({"op": "deploy", "object_id": JOB}) == {"object_id": 99}
    announced = bench.network.messages(AnnounceObject)[0]
    assert (announced.kind, announced.accuracy) == ("deploy", {"broad": 0.85})
    assert (bench.network.sent[-1].object_id, bench.network.sent[-1].payload) == (99, model)


def test_a_log_that_stops_short_is_kept_as_far_as_it_goes(tmp_path: Path, model: bytes) -> None:
    bench = owning({OrderRequest: ordered("home", log=[{"visit": 0}], log_length=3), Returned: Ack()}, tmp_path)
    bench.role.command({"op": "submit", "spec": SPEC})
    bench.role.object_arrived(arrived(model))
    assert msgspec.json.decode((tmp_path / "me" / "training-log.json").read_bytes()) == [{"visit": 0}]
    assert "log cut after 1 of 3" in bench.errors() and bench.network.messages(Returned)


def test_a_model_that_was_never_submitted_is_not_taken(tmp_path: Path, model: bytes) -> None:
    bench = owning({OrderRequest: ordered("home"), Returned: Ack()}, tmp_path)
    bench.role.object_arrived(arrived(model))
    assert "never submitted" in bench.errors() and not (tmp_path / "me").exists()


def test_bytes_that_are_no_model_do_not_come_home(tmp_path: Path) -> None:
    bench = owning({OrderRequest: ordered("home"), Returned: Ack()}, tmp_path)
    bench.role.command({"op": "submit", "spec": SPEC})
    bench.role.object_arrived(arrived(b"junk"))
    assert not bench.network.messages(Returned) and not (tmp_path / "me" / "model.safetensors").exists()


def test_an_owner_inquires_after_its_own_jobs(tmp_path: Path) -> None:
    status = JobStatus(state="running", visits=3, broad=0.6, expert=0.7)
    bench = owning({Inquire: status}, tmp_path)
    bench.role.command({"op": "submit", "spec": SPEC})
    assert bench.role.command({"op": "inquire", "object_id": JOB})["status"]["visits"] == 3
    with pytest.raises(BadCommand, match="no job of me"):
        bench.role.command({"op": "inquire", "object_id": 5})


# --- all ---


@pytest.mark.parametrize("role", sorted(ROLES))
def test_every_role_survives_strangers(tmp_path: Path, parts: dict[str, NodeData], role: str, model: bytes) -> None:
    bench = Bench(role, {}, tmp_path, parts["me"])
    bench.role.object_arrived(arrived(b"\x00" * 10, object_id=0))
    bench.network.script[OrderRequest] = ordered("no such action")
    bench.role.object_arrived(arrived(model, object_id=2**64 - 1, visit=0xFFFF))
    bench.role.message_arrived(question(PacketType.TELEMETRY, 1), b"", PEER)
    bench.role.message_arrived(question(PacketType.QUERY, 2), encode_message(Ask(task="x", sample=[])), PEER)
    bench.role.message_arrived(question(PacketType.PROBE, 3), b"", PEER)
    bench.role.tick()
    with pytest.raises(BadCommand, match="state"):
        bench.role.command({"op": "fly"})
    assert bench.kinds().count("error") == 2
    assert all(to in (DCC_ADDRESS,) for to, _ in bench.network.asked)
    assert {"compute_samples_per_s", "memory_mib", "queue", "load"} <= bench.role.attributes().keys()


def test_a_surprise_in_a_role_is_an_error_event(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    bench = Bench("data", {OrderRequest: ordered("train", data_node="me")}, tmp_path, parts["me"])
    monkeypatch.setattr(the_task(), "train", fail)
    bench.role.object_arrived(arrived(model))
    assert "a bug" in bench.errors() and bench.terminal.activities.state == ("idle", 0) and bench.terminal.queue == 0


def test_learning_errors_are_not_ours_to_hide() -> None:
    """A guard on the bench itself: the helper's bytes really are no model."""
    with pytest.raises(LearningError):
        bytes_to_model(the_task(), b"not a model")


@pytest.mark.parametrize("how", ["int8", "lossless"])
def test_a_compressed_model_comes_home_and_is_kept_plain(tmp_path: Path, model: bytes, how: str) -> None:
    coded = model_to_bytes(bytes_to_model(the_task(), model), parse_spec(how))
    bench = owning(
        {Submit: SubmitReply(object_id=JOB, admitted=True), OrderRequest: ordered("home"), Returned: Ack()}, tmp_path
    )
    bench.role.command({"op": "submit", "spec": {"task": "vignettes"}})
    bench.role.object_arrived(arrived(coded, visit=9))
    kept = (bench.terminal.folder / "model.safetensors").read_bytes()
    assert encoding_of(kept) == ("none", "") and len(kept) > len(coded)


def test_a_visit_sends_the_model_on_in_the_encoding_of_its_order(
    tmp_path: Path, parts: dict[str, NodeData], model: bytes
) -> None:
    bench = Bench(
        "data",
        {OrderRequest: ordered("train", epochs=0.1, compression="topk:0.1"), VisitDone: Ack()},
        tmp_path,
        parts["me"],
    )
    bench.role.object_arrived(arrived(model))
    assert encoding_of(bench.network.sent[-1].payload)[0] == "int8"  # the next place holds no base for a difference


def test_a_compression_that_is_none_is_a_bad_command(tmp_path: Path) -> None:
    with pytest.raises(BadCommand, match="int8"):
        owning({}, tmp_path).role.command({"op": "submit", "spec": {"task": "vignettes", "compression": "zip"}})
