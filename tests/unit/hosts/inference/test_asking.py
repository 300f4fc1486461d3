"""An asker under load, on the loopback against a stand-in for the network: open loop, resent, moved, refused."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hosts.inference import ports
from hosts.inference.asking import Asking, Means
from hosts.inference.load import LoadSpec, known_policies, make_policy
from packets.messages import (
    Answer,
    Ask,
    Busy,
    Known,
    Message,
    Need,
    Refused,
    Replicas,
    State,
    decode_message,
    encode_message,
)
from packets.queries import query_label
from packets.wire import Flag, Header, PacketType, decode, encode

HERE = "127.0.0.1"
A, B = 0x11_0001, 0x12_0001


class Net:
    """Takes what is sent to labels, and answers as ``answer`` says (None: nothing)."""

    def __init__(self, answer: Callable[[int, Ask, Header], Message | None]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HERE, 0))
        self.socket.settimeout(0.05)
        self.answer, self.asked, self.over = answer, list[tuple[int, Header]](), threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self.socket.recvfrom(65536)
                header, payload = decode(data)
                self.asked.append((header.object_id, header))
                message = decode_message(payload)
                reply = self.answer(header.object_id, message, header)  # type: ignore[arg-type]
                if reply is not None:
                    out = Header(type=PacketType.RESPONSE, flags=Flag.REPLY, transfer_id=header.transfer_id)
                    self.socket.sendto(encode(out, encode_message(reply)), peer)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Net]]:
    made: list[Net] = []

    def make(answer: Callable[[int, Ask, Header], Message | None]) -> Net:
        made.append(Net(answer))
        monkeypatch.setattr(ports, "label_address", lambda _: HERE)
        monkeypatch.setattr(ports, "AI_PORT", made[-1].socket.getsockname()[1])
        return made[-1]

    yield make
    for one in made:
        one.over.set()


def asking(
    replicas: Callable[[], list[Known]], due: list[float], policy: str = "nearest", need: Need | None = None
) -> Asking:
    import random

    need = need or Need()

    def told() -> Replicas:
        return Replicas(label=query_label("t", need), replicas=replicas())

    def emit(kind: str, /, **data: Any) -> None:
        pass

    means = Means(HERE, None, emit, told)
    chooser = make_policy(policy, random.Random(1))
    one = Asking(means, "t", need, [([1.0], "yes"), ([2.0], "no")], iter([*due, 1e9]), 60.0, chooser, refresh_s=0.02)
    if chooser is not None:
        one.known.told(replicas(), means.clock())
    return one


def model(label: int, path_ms: float = 1.0) -> Known:
    return Known(label=label, path_ms=path_ms, service_ms=1.0)


def yes(label: int) -> Answer:
    return Answer(answer="yes", confidence=0.9, answered_by="m", state=State(label=label, in_flight=1, service_ms=1.0))


def test_queries_go_to_the_model_that_the_policy_picks_and_are_judged(net: Callable[..., Net]) -> None:
    network = net(lambda label, ask, header: yes(label))
    one = asking(lambda: [model(A), model(B, 9.0)], [0.0, 0.01, 0.02, 0.03])
    one.start()
    assert one.over.wait(5.0)
    assert [r.outcome for r in one.rows] == ["answered"] * 4 and {label for label, _ in network.asked} == {A}
    assert sorted(r.right for r in one.rows) == [0, 0, 1, 1] and {r.model for r in one.rows} == {A}


def test_without_a_policy_they_go_to_the_class_from_several_ports(net: Callable[..., Net]) -> None:
    network = net(lambda label, ask, header: yes(A))
    one = asking(list, [i / 100 for i in range(8)], "group")
    one.start()
    assert one.over.wait(5.0)
    assert {label for label, _ in network.asked} == {query_label("t", Need())} and {r.model for r in one.rows} == {A}


def test_a_slow_answer_does_not_slow_the_asking(net: Callable[..., Net]) -> None:
    first = threading.Event()

    def answer(label: int, ask: Ask, header: Header) -> Message | None:
        if not first.is_set() and not header.flags & Flag.REPEATED:
            first.set()
            return None
        return yes(label)

    net(answer)
    one = asking(lambda: [model(A)], [0.0, 0.05, 0.1])
    began = time.monotonic()
    one.start()
    assert one.over.wait(5.0) and time.monotonic() - began < 2.0
    by_due = sorted(one.rows)
    assert by_due[0].latency_ms > 250 and all(r.latency_ms < 200 for r in by_due[1:])
    assert [r.outcome for r in by_due] == ["answered"] * 3, "the lost one was sent again"


def test_what_is_with_a_model_that_goes_is_asked_of_another(net: Callable[..., Net]) -> None:
    here = [model(A), model(B, 9.0)]
    network = net(lambda label, ask, header: yes(label) if label == B else None)
    one = asking(lambda: list(here), [0.0, 0.01])
    one.start()
    time.sleep(0.15)
    here.pop(0)
    assert one.over.wait(5.0)
    assert [r.outcome for r in one.rows] == ["answered"] * 2 and {r.model for r in one.rows} == {B}
    assert max(r.latency_ms for r in one.rows) < 600, "not at a time-out, at the word of the control centre"
    assert {label for label, _ in network.asked} == {A, B}


def test_a_busy_model_sends_a_query_on_and_all_busy_refuse_it(net: Callable[..., Net]) -> None:
    busy = {A}

    def answer(label: int, ask: Ask, header: Header) -> Message:
        return Busy(reason="full", state=State(label=label, in_flight=64)) if label in busy else yes(label)

    net(answer)
    one = asking(lambda: [model(A), model(B, 9.0)], [0.0])
    one.start()
    assert one.over.wait(5.0)
    assert [(r.outcome, r.model, r.tries) for r in one.rows] == [("answered", B, 2)]
    busy.add(B)
    two = asking(lambda: [model(A), model(B, 9.0)], [0.0])
    two.start()
    assert two.over.wait(5.0)
    assert [r.outcome for r in two.rows] == ["refused"] and two.reasons == {"full": 1}


def test_a_refusal_is_counted_with_its_reason(net: Callable[..., Net]) -> None:
    net(lambda label, ask, header: Refused(reason="no such task"))
    one = asking(list, [0.0, 0.01], "group")
    one.start()
    assert one.over.wait(5.0)
    assert [r.outcome for r in one.rows] == ["refused"] * 2 and one.reasons == {"no such task": 2}


def test_noise_at_its_ports_costs_nothing(net: Callable[..., Net]) -> None:
    network = net(lambda label, ask, header: None)
    one = asking(lambda: [model(A)], [0.0, 0.3])
    one.start()
    noisy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    time.sleep(0.1)
    number = network.asked[0][1].transfer_id
    mine = one._ports._sockets[number % ports.PORTS].getsockname()
    for data in (b"", b"x" * 2000, encode(Header(type=PacketType.RESPONSE, flags=Flag.REPLY, transfer_id=number ^ 1))):
        noisy.sendto(data, mine)
    garbage = Header(type=PacketType.RESPONSE, flags=Flag.REPLY, transfer_id=number)
    noisy.sendto(encode(garbage, b"\xc1 no message"), mine)
    network.answer = lambda label, ask, header: yes(label)
    assert one.over.wait(5.0)
    assert sorted(r.outcome for r in one.rows) == ["answered", "refused"]


def test_a_load_names_the_policies_there_are() -> None:
    import random

    from hosts.errors import BadCommand

    assert "group" in known_policies() and LoadSpec().policy in known_policies()
    with pytest.raises(BadCommand, match="qirce"):
        make_policy("quirce", random.Random(1))
