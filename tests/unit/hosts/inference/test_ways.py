"""Ways of inference among MDFPs: who is asked, what travels, where the answer goes, and what happens when some fail."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from hosts.errors import BadCommand, DccRefused
from hosts.inference import onward
from hosts.inference.onward import Line
from hosts.inference.ports import Ports
from hosts.inference.ways import Answerer, bytes_to_chances, bytes_to_fusion, chances_to_bytes, fusion_to_bytes
from hosts.learning.errors import LearningError
from hosts.learning.task import TaskSpec, VignetteTask, model_to_bytes
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.collaborative import combine
from hosts.learning.ways.multimodal import Fusion, fuse
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.split import cut_model
from hosts.learning.ways.vitals import VitalsTask
from hosts.roles.mdfp import Mdfp
from hosts.roles.owner import ModelOwner
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Answer,
    Ask,
    Known,
    Message,
    Need,
    Order,
    Refused,
    Replicas,
    Way,
    decode_message,
    encode_message,
)
from packets.parts import cut
from packets.transport import ReceivedObject
from packets.wire import NO_FLAGS, Flag, Header, PacketType
from topologies.plan import HostPlan

SPEC = TaskSpec(noise=0.4, findings_per_vignette=8, train_per_node=16, test_per_node=16)
TEXT, CHEAP, VITALS = VignetteTask(SPEC), CheapVignetteTask(SPEC), VitalsTask(SPEC)
ASKER = ("10.1.0.9", 40001)
Peer = tuple[str, int]


class Net:
    """Carries messages between MDFPs and one asker; loses what ``lose`` says, once each."""

    def __init__(self) -> None:
        self.by_label: dict[int, Place] = {}
        self.lines: dict[str, HubLine] = {}
        self.sent: list[tuple[str, PacketType, int]] = []
        self.asks: list[Ask] = []
        self.heard: queue.Queue[tuple[Header, Message, str]] = queue.Queue()
        self.lose: list[Callable[[Message], bool]] = []

    def lost(self, message: Message) -> bool:
        found = next((rule for rule in self.lose if rule(message)), None)
        if found is not None:
            self.lose.remove(found)
        return found is not None

    def to_label(self, sender: Peer, header: Header, payload: bytes, label: int) -> None:
        message = decode_message(payload)
        self.sent.append((sender[0], header.type, len(payload)))
        assert len(list(cut(msgspec.structs.replace(header, total_length=len(payload)), payload))) <= 40
        if isinstance(message, Ask):
            self.asks.append(message)
        if not self.lost(message) and label in self.by_label:
            role = self.by_label[label].role
            threading.Thread(target=role.message_arrived, args=(header, payload, sender), daemon=True).start()

    def to_place(self, sender: str, header: Header, payload: bytes, peer: Peer, kind: PacketType) -> None:
        message = decode_message(payload)
        if self.lost(message):
            return
        answer = msgspec.structs.replace(header, type=kind, flags=Flag.REPLY)
        if peer == ASKER:
            self.heard.put((answer, message, sender))
        elif peer[0] in self.lines:
            self.lines[peer[0]].came.put((answer, message, (sender, 55831)))


class HubLine:
    """What ``Ports`` is on a network."""

    def __init__(self, net: Net, address: str, awaited: Callable[[int], bool]) -> None:
        self.net, self.address, self.awaited = net, address, awaited
        self.known: dict[int, str] = {}  # who answers, by label
        self.came: queue.Queue[tuple[Header, Message, Peer]] = queue.Queue()
        net.lines[address] = self

    def answers(self, label: int, address: str) -> None:
        self.known[label] = address

    def send(self, header: Header, payload: bytes, label: int) -> None:
        self.net.to_label((self.address, 50000), header, payload, label)

    def wait(self, timeout_s: float) -> Iterator[tuple[Header, Message, Peer]]:
        try:
            heard = self.came.get(timeout=timeout_s)
        except queue.Empty:
            return
        if self.awaited(heard[0].transfer_id):
            yield heard


class OnHub(Mdfp):
    """An MDFP whose line is the hub's and whose control centre is a table of labels."""

    net: Net
    labels: dict[str, dict[int, float]]

    def _open_line(self, awaited: Callable[[int], bool]) -> Line:  # type: ignore[override]
        return HubLine(self.net, self.terminal.plan.address, awaited)

    def _replicas(self, task: str) -> Replicas:
        known = self.labels.get(task)
        if not known:
            raise DccRefused(f"no MDFP hosts a model of task {task}")
        return Replicas(label=1, replicas=[Known(label=n, path_ms=0.1, accuracy=a) for n, a in known.items()])


class Place:
    """One MDFP."""

    def __init__(self, net: Net, number: int, labels: dict[str, dict[int, float]], folder: Path) -> None:
        self.net, self.address, self.events = net, f"10.1.0.{number}", list[tuple[str, dict[str, Any]]]()
        about: dict[str, Any] = {"name": f"m{number}", "role": "mdfp", "kas": 1, "address": self.address}
        plan = HostPlan(mac=f"02:00:00:00:00:0{number}", switch="s1", port=number, **about)
        terminal = Terminal(
            plan=plan, task=TEXT, network=self, emit=lambda kind, **data: self.events.append((kind, data)),  # type: ignore[arg-type]
            submit=inline, meter=Meter(1000.0, time.monotonic), folder=folder,
        )  # fmt: skip
        kind = type("There", (OnHub,), {"net": net, "labels": labels})
        self.role: Mdfp = kind(terminal)

    def reply(self, header: Header, payload: bytes, peer: Peer, *, type: PacketType) -> None:
        self.net.to_place(self.address, header, payload, peer, type)


class House:
    """Some MDFPs, and what is deployed where."""

    def __init__(self, folder: Path, places: int = 4) -> None:
        self.net, self.labels = Net(), dict[str, dict[int, float]]()
        self.places = [Place(self.net, n, self.labels, folder) for n in range(1, places + 1)]
        self._numbers = iter(range(0x100001, 0x100100))
        self._transfers = iter(range(7, 1000))

    def deploy(self, at: int, payload: bytes, variant: str = "", accuracy: float = 0.5, **way: Any) -> int:
        label = next(self._numbers)
        obj = ReceivedObject(
            object_id=label, type=PacketType.MODEL_SHARD, payload=payload, owner="10.1.0.8", visit=0, visit_limit=4,
            requirements=None, sender="10.1.0.8", transfer_id=1, seconds=0.1, packets=1, duplicates=0,
        )  # fmt: skip
        order = Order(
            action="deploy", object_id=label, visit=0, task="vignettes", accuracy={"broad": accuracy},
            variant=variant, way=Way(**way),
        )  # fmt: skip
        self.places[at].role.deploy(obj, order)
        task = f"vignettes/{variant}" if variant else "vignettes"
        self.labels.setdefault(task, {})[label] = accuracy
        self.net.by_label[label] = self.places[at]
        return label

    def know(self, at: int, *variants: str) -> None:
        end = time.monotonic() + 5
        while not all(self.places[at].role.onward.knows(f"vignettes/{v}") for v in variants):
            assert time.monotonic() < end
            time.sleep(0.01)

    def ask(self, label: int, task: str, sample: Any, *, number: int = 0, **more: Any) -> tuple[Header, Any, str]:
        header = Header(
            type=PacketType.QUERY, flags=Flag.REPEATED if number else NO_FLAGS, object_id=label,
            transfer_id=number or next(self._transfers),
        )  # fmt: skip
        self.net.to_label(ASKER, header, encode_message(Ask(task=task, sample=list(sample), **more)), label)
        return self.net.heard.get(timeout=5)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(onward, "RETRY_S", 0.01)
    return House(tmp_path)


def samples(count: int = 6) -> list[list[float]]:
    rng = random.Random(3)
    return [TEXT.sample_of("", rng)[0] for _ in range(count)]


def chances_of(task: VignetteTask, seed: int, sample: list[float]) -> torch.Tensor:
    inputs = torch.tensor([sample]).to(task.input_type)
    return probabilities(task.new_model(seed), type("S", (), {"inputs": inputs}))  # type: ignore[arg-type]


LARGE, LITTLE = model_to_bytes(TEXT.new_model(1)), model_to_bytes(CHEAP.new_model(2))


def switched(house: House, threshold: float) -> int:
    house.deploy(1, LARGE, "large", 0.9)
    label = house.deploy(0, LITTLE, kind="switched", model="cheap", asks=["large"], threshold=threshold)
    house.know(0, "large")
    return label


def test_a_sure_cheap_model_answers_itself(house: House) -> None:
    label = switched(house, 0.0)
    _, answer, by = house.ask(label, "vignettes", samples()[0])
    assert answer.answer == TEXT.labels[int(chances_of(CHEAP, 2, samples()[0]).argmax())]
    assert (by, answer.answered_by, answer.state.label) == ("10.1.0.1", "m1", label) and len(house.net.asks) == 1


def test_an_unsure_one_sends_the_query_on_and_the_answer_goes_straight_to_the_asker(house: House) -> None:
    label = switched(house, 2.0)
    header, answer, by = house.ask(label, "vignettes", samples()[0])
    assert answer.answer == TEXT.labels[int(chances_of(TEXT, 1, samples()[0]).argmax())]
    assert (by, answer.answered_by, header.transfer_id) == ("10.1.0.2", "m2", 7)
    assert answer.state is None, "else the asker took it for the state of the model that it asked"
    (asked, further) = house.net.asks
    assert (further.task, further.answer_to, further.answer_port, further.hops) == ("vignettes/large", *ASKER, 1)
    assert asked.sample == further.sample


def test_what_is_lost_behind_is_sent_on_again_when_the_asker_repeats(house: House) -> None:
    label = switched(house, 2.0)
    house.net.lose = [lambda m: isinstance(m, Ask) and m.hops == 1, lambda m: isinstance(m, Answer)]
    with pytest.raises(queue.Empty):
        header = Header(type=PacketType.QUERY, object_id=label, transfer_id=900)
        payload = encode_message(Ask(task="vignettes", sample=samples()[0]))
        house.net.to_label(ASKER, header, payload, label)
        house.net.heard.get(timeout=0.3)
    with pytest.raises(queue.Empty):
        house.net.to_label(ASKER, msgspec.structs.replace(header, flags=Flag.REPEATED), payload, label)
        house.net.heard.get(timeout=0.3)
    _, answer, _ = house.ask(label, "vignettes", samples()[0], number=900)
    assert answer.answered_by == "m2"
    assert house.places[1].role._by_label[0x100001].service_ms > 0 and house.net.heard.empty()


def test_a_cheap_model_without_a_large_one_answers_as_well_as_it_can(house: House) -> None:
    label = house.deploy(0, LITTLE, kind="switched", model="cheap", asks=["large"], threshold=2.0)
    _, answer, _ = house.ask(label, "vignettes", samples()[0])
    assert answer.answered_by == "m1"


@pytest.mark.parametrize("third", ["", "10.1.0.77"])
def test_a_large_model_that_is_too_busy_gives_the_answer_of_the_cheap_one(house: House, third: str) -> None:
    label = switched(house, 2.0)
    serving = house.places[1].role.serving
    serving.in_flight = serving.limit
    _, answer, by = house.ask(label, "vignettes", samples()[0], answer_to=third)
    if third:
        assert isinstance(answer, Ack) and house.net.asks[1].otherwise is not None
        return
    assert isinstance(answer, Answer) and (by, answer.answered_by) == ("10.1.0.2", "m1")
    assert answer.answer == TEXT.labels[int(chances_of(CHEAP, 2, samples()[0]).argmax())]
    assert answer.confidence < 1 and answer.state is None


def test_when_the_large_model_is_gone_the_cheap_one_answers_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onward, "REFRESH_S", 0.01)
    label = switched(house, 2.0)
    assert house.ask(label, "vignettes", samples()[0])[1].answered_by == "m2"
    house.labels.clear()
    end = time.monotonic() + 5
    while house.places[0].role.onward.knows("vignettes/large") and time.monotonic() < end:
        time.sleep(0.01)
    assert house.ask(label, "vignettes", samples()[0])[1].answered_by == "m1"


def test_a_deadline_goes_on_with_what_is_left_of_it(house: House) -> None:
    label = switched(house, 2.0)
    house.ask(
        label,
        "vignettes",
        samples()[0],
        need=Need(deadline_ms=500),
    )
    assert 1 <= house.net.asks[1].need.deadline_ms <= 500


def test_an_answer_for_a_third_place_comes_from_the_large_model_and_who_asked_is_told(house: House) -> None:
    label = switched(house, 2.0)
    _, reply, by = house.ask(label, "vignettes", samples()[0], answer_to="10.1.0.77")
    assert isinstance(reply, Ack) and by == "10.1.0.1"
    assert (house.net.asks[1].answer_to, house.net.asks[1].answer_port) == ("10.1.0.77", 55831)


@pytest.mark.parametrize("at", [1, 2])
def test_a_model_cut_over_two_places_answers_as_the_whole_one(house: House, at: int) -> None:
    lower, upper = cut_model(TEXT, TEXT.new_model(1), at)
    house.deploy(2, upper.to_bytes(), "upper", kind="upper", cut=at, seal=upper.seal)
    label = house.deploy(0, lower.to_bytes(), kind="lower", cut=at, seal=lower.seal, asks=["upper"])
    house.know(0, "upper")
    for sample in samples(3):
        _, answer, by = house.ask(label, "vignettes", sample, chances=True)
        whole = chances_of(TEXT, 1, sample)
        assert answer.answer == TEXT.labels[int(whole.argmax())] and by == "10.1.0.3"
        got = bytes_to_chances(answer.chances, len(TEXT.labels))
        assert got is not None and torch.allclose(got, whole.double(), atol=2e-3)
    assert all(not a.sample and a.activations for a in house.net.asks if a.hops), "the sample stays at the lower side"


def test_sides_of_different_models_do_not_answer_together(house: House) -> None:
    lower, _ = cut_model(TEXT, TEXT.new_model(1), 2)
    _, upper = cut_model(TEXT, TEXT.new_model(5), 2)
    house.deploy(1, upper.to_bytes(), "upper", kind="upper", cut=2, seal=upper.seal)
    label = house.deploy(0, lower.to_bytes(), kind="lower", cut=2, seal=lower.seal, asks=["upper"])
    house.know(0, "upper")
    _, reply, _ = house.ask(label, "vignettes", samples()[0])
    assert isinstance(reply, Refused) and "another model or cut" in reply.reason


def test_a_lower_side_without_an_upper_one_says_so(house: House) -> None:
    lower, _ = cut_model(TEXT, TEXT.new_model(1), 2)
    label = house.deploy(0, lower.to_bytes(), kind="lower", cut=2, seal=lower.seal, asks=["upper"])
    _, reply, _ = house.ask(label, "vignettes", samples()[0])
    assert isinstance(reply, Refused) and "vignettes/upper" in reply.reason


def together(house: House) -> int:
    for at, seed, accuracy in ((1, 11, 0.7), (2, 12, 0.9)):
        house.deploy(at, model_to_bytes(TEXT.new_model(seed)), f"member{at}", accuracy)
    asks = ["member1", "member2"]
    label = house.deploy(0, model_to_bytes(TEXT.new_model(10)), "", 0.8, kind="collaborative", asks=asks)
    house.know(0, *asks)
    return label


def expected(sample: list[float], members: dict[int, float]) -> torch.Tensor:
    answers = {str(seed): chances_of(TEXT, seed, sample) for seed in members}
    return combine(answers, {str(seed): accuracy for seed, accuracy in members.items()})


def test_members_answer_together_weighed_by_what_was_measured(house: House) -> None:
    label = together(house)
    for sample in samples(3):
        _, answer, by = house.ask(label, "vignettes", sample, chances=True)
        got = bytes_to_chances(answer.chances, len(TEXT.labels))
        assert got is not None and by == "10.1.0.1" and answer.state.label == label
        assert torch.allclose(got, expected(sample, {10: 0.8, 11: 0.7, 12: 0.9}), atol=1e-3)


def test_a_member_that_says_nothing_is_asked_again_then_left_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    label = together(house)
    house.net.lose = [lambda m: isinstance(m, Ask) and m.task.endswith("member1")]
    _, answer, _ = house.ask(label, "vignettes", samples()[0], chances=True)
    got = bytes_to_chances(answer.chances, len(TEXT.labels))
    assert got is not None and torch.allclose(got, expected(samples()[0], {10: 0.8, 11: 0.7, 12: 0.9}), atol=1e-3)
    monkeypatch.setattr(onward, "PATIENCE_S", 0.2)
    del house.net.by_label[next(iter(house.labels["vignettes/member1"]))]
    _, answer, _ = house.ask(label, "vignettes", samples()[0], chances=True)
    got = bytes_to_chances(answer.chances, len(TEXT.labels))
    assert got is not None and torch.allclose(got, expected(samples()[0], {10: 0.8, 12: 0.9}), atol=1e-3)
    assert house.places[0].role.onward.under_way == 0


def fusion() -> Fusion:
    rng, labels = np.random.default_rng(1), len(TEXT.labels)
    return Fusion(
        text=rng.uniform(0.5, 1.5, labels).tolist(), vitals=rng.uniform(0.5, 1.5, labels).tolist(),
        bias=rng.normal(0, 0.1, labels).tolist(), text_temperature=1.2, vitals_temperature=0.9,
    )  # fmt: skip


def test_findings_and_vitals_are_answered_at_two_places_and_fused_at_a_third(house: House) -> None:
    house.deploy(1, LARGE, "text")
    house.deploy(2, model_to_bytes(VITALS.new_model(4)), "vitals", model="vitals")
    label = house.deploy(0, fusion_to_bytes(fusion()), "", kind="multimodal", asks=["text", "vitals"])
    house.know(0, "text", "vitals")
    text, (vitals, _) = samples()[0], VITALS.sample_of("", random.Random(2))
    alone = chances_of(TEXT, 1, text), chances_of(VITALS, 4, vitals)
    cases = [([*text, *vitals], alone), (text, (alone[0], None)), (vitals, (None, alone[1]))]
    for sample, parts in cases:
        _, answer, by = house.ask(label, "vignettes", sample, chances=True)
        got = bytes_to_chances(answer.chances, len(TEXT.labels))
        assert got is not None and by == "10.1.0.1" and torch.allclose(got, fuse(fusion(), *parts), atol=1e-2)
    _, reply, _ = house.ask(label, "vignettes", text[:-2])
    assert isinstance(reply, Refused) and "7 of vitals" in reply.reason


def test_models_that_ask_each_other_in_a_circle_come_to_an_end(house: House) -> None:
    labels = [
        house.deploy(at, LITTLE, mine, kind="switched", model="cheap", asks=[other], threshold=2.0)
        for at, mine, other in ((0, "a", "b"), (1, "b", "a"))
    ]
    house.know(0, "b")
    house.know(1, "a")
    _, reply, _ = house.ask(labels[0], "vignettes/a", samples()[0])
    assert isinstance(reply, Refused) and "circle" in reply.reason


def test_who_answers_for_a_label_is_found_out_and_later_partners_are_too(house: House) -> None:
    switched(house, 2.0)
    house.deploy(1, model_to_bytes(TEXT.new_model(11)), "member1", 0.7)
    house.deploy(0, LARGE, "together", kind="collaborative", asks=["member1"])
    house.know(0, "large", "member1")
    end = time.monotonic() + 5
    while len(known := house.net.lines["10.1.0.1"].known) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert known == {0x100001: "10.1.0.2", 0x100003: "10.1.0.2"}


def test_ports_are_such_a_line() -> None:
    line: Line = Ports("127.0.0.1", None, lambda kind, **data: None, lambda number: False)
    line.answers(5, "127.0.0.1")
    line.send(Header(type=PacketType.QUERY), b"x", 5)
    assert list(line.wait(0.0)) == []
    line.close()  # type: ignore[attr-defined]


def test_only_who_serves_may_say_where_an_answer_goes(house: House) -> None:
    label = house.deploy(0, LARGE)

    class Guard:
        role = "query_owner"

        def peer(self, address: str) -> Guard:
            return self

    house.places[0].role.terminal.guard = Guard()  # type: ignore[assignment]
    _, reply, _ = house.ask(label, "vignettes", samples()[0], answer_to="10.1.0.77", answer_port=9)
    assert isinstance(reply, Refused) and "only an MDFP" in reply.reason


def test_chances_travel_only_when_asked_for(house: House) -> None:
    label = house.deploy(0, LARGE)
    assert not house.ask(label, "vignettes", samples()[0])[1].chances
    assert len(house.ask(label, "vignettes", samples()[0], chances=True)[1].chances) == 2 * len(TEXT.labels)


# --- what is deployed


@pytest.mark.parametrize(
    ("payload", "way", "why"),
    [
        (b"no model", Way(kind="switched", model="cheap", asks=["x"]), "model"),
        (LITTLE, Way(kind="switched", model="cheap"), "0 variants to ask, 1 are needed"),
        (LARGE, Way(kind="lower", cut=2, asks=["upper"]), "tensor"),
        (LARGE, Way(kind="upper", cut=9), "cuts this model at"),
        (b"\x80", Way(kind="multimodal", asks=["a", "b"]), "fusion"),
        (fusion_to_bytes(fusion()), Way(kind="multimodal", asks=["a"]), "2 are needed"),
    ],
)
def test_what_cannot_answer_is_not_deployed(payload: bytes, way: Way, why: str) -> None:
    with pytest.raises(LearningError, match=why):
        Answerer(TEXT, payload, way)


def test_a_fusion_is_checked() -> None:
    assert bytes_to_fusion(fusion_to_bytes(fusion()), len(TEXT.labels)) == fusion()
    bad = [
        msgspec.structs.replace(fusion(), bias=[0.0]),
        msgspec.structs.replace(fusion(), text_temperature=0.0),
        msgspec.structs.replace(fusion(), text=[float("nan")] * len(TEXT.labels)),
    ]
    for one in bad:
        with pytest.raises(LearningError, match="fusion"):
            bytes_to_fusion(fusion_to_bytes(one), len(TEXT.labels))


def test_chances_are_checked() -> None:
    row = torch.full((48,), 1 / 48)
    got = bytes_to_chances(chances_to_bytes(row), 48)
    assert got is not None and torch.allclose(got[0], row.double(), atol=1e-4)
    assert bytes_to_chances(chances_to_bytes(row), 47) is None and bytes_to_chances(b"", 48) is None
    assert bytes_to_chances(chances_to_bytes(row * 2), 48) is None
    assert bytes_to_chances(chances_to_bytes(row * float("nan")), 48) is None


def test_old_messages_stay_as_they_are() -> None:
    ask = Ask(task="vignettes", sample=[1])
    assert encode_message(ask) == msgspec.msgpack.encode({"m": "ask", "task": "vignettes", "sample": [1]})
    order = Order(action="deploy", object_id=1, visit=0)
    assert decode_message(encode_message(order)) == order and b"way" not in encode_message(order)
    told = AnnounceObject(name="o", kind="deploy", task="t", size_bytes=1)
    assert b"variant" not in encode_message(told) and decode_message(encode_message(told)) == told
    decoded = decode_message(encode_message(told))
    assert isinstance(decoded, AnnounceObject)
    through = Order(action="deploy", object_id=1, visit=0, variant=decoded.variant, way=decoded.way)
    assert encode_message(through) == encode_message(order)


# --- the owner


class DccOnly:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.sent: list[Any] = []

    def request(self, payload: bytes, **_: Any) -> tuple[Header, bytes]:
        self.asked.append(decode_message(payload))
        return Header(type=PacketType.ANNOUNCE, flags=Flag.REPLY), encode_message(AnnounceReply(object_id=99))

    def send_object(self, obj: Any) -> Any:
        self.sent.append(obj)
        return type("Sent", (), {"result": lambda self, timeout_s: pytest.skip("unused")})()


def owner(folder: Path) -> tuple[ModelOwner, DccOnly]:
    network = DccOnly()
    plan = HostPlan(
        name="o", role="model_owner", kas=1, address="10.1.0.8", mac="02:00:00:00:00:08", switch="s1", port=8
    )
    terminal = Terminal(
        plan=plan, task=TEXT, network=network, emit=lambda kind, **data: None, submit=lambda work: True,  # type: ignore[arg-type]
        meter=Meter(1000.0, time.monotonic), folder=folder,
    )  # fmt: skip
    return ModelOwner(terminal), network


def test_an_owner_deploys_a_file_as_a_variant_with_its_way(tmp_path: Path) -> None:
    role, network = owner(tmp_path)
    file = tmp_path / "cheap"
    file.write_bytes(LITTLE)
    way = {"kind": "switched", "model": "cheap", "asks": ["large"], "threshold": 0.6}
    command = {"op": "deploy", "file": str(file), "variant": "quick", "way": way, "accuracy": {"broad": 0.7}}
    assert role.command(command) == {"object_id": 99}
    (told,) = network.asked
    assert (told.kind, told.variant, told.accuracy, told.size_bytes) == ("deploy", "quick", {"broad": 0.7}, len(LITTLE))
    assert told.way == Way(kind="switched", model="cheap", asks=["large"], threshold=0.6)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"way": {"kind": "sideways"}}, "deployment"),
        ({"way": {"kind": "single", "colour": 1}}, "deployment"),
        ({"variant": "No Good"}, "deployment"),
        ({"variant": "x" * 24}, "deployment"),
        ({"file": "/no/such/file"}, "No such file"),
        ({"accuracy": {"broad": "high"}}, "deployment"),
    ],
)
def test_a_deployment_that_makes_no_sense_is_named(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    role, _ = owner(tmp_path)
    (tmp_path / "m").write_bytes(LITTLE)
    with pytest.raises(BadCommand, match=why):
        role.command({"op": "deploy", "file": str(tmp_path / "m"), **more})
