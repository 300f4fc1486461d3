"""A stream at who asks it: whatever comes in, each part comes out once, in order; what does not come is asked for."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts.errors import BadCommand, DccRefused, StreamBroken, TerminalRefused
from hosts.inference import ports, streaming
from hosts.inference.asking import Means
from hosts.inference.streaming import InOrder, Streaming, samples_a_part
from packets.messages import (
    AskPart,
    Busy,
    Known,
    Message,
    Need,
    Refused,
    Replicas,
    State,
    StreamPart,
    decode_message,
    encode_message,
)
from packets.queries import Given, query_label
from packets.wire import Flag, Header, PacketType, decode, encode

A, B = 0x11_0001, 0x12_0001
AT = {A: "127.0.0.2", B: "127.0.0.3"}
CLASS = query_label("t", Need())
CLASS_AT = "127.0.0.4"


def part(number: int, total: int = 20, size: int = 8, stream: int = 5, label: int = A) -> StreamPart:
    count = min(size, total - number * size)
    answers = [Given(answer=str(number * size + i)) for i in range(count)]
    return StreamPart(
        stream=stream, total=total, size=size, number=number, answers=answers, answered_by=f"m{label:x}",
        state=State(label=label),
    )  # fmt: skip


# --- what comes in is put in order ------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, int, int, list[tuple[str, int]]]:
    """A stream, and what a bad network makes of its parts: each asked for is delayed, dropped, doubled, or a lie."""
    total, size, window = draw(st.integers(1, 60)), draw(st.integers(1, 8)), draw(st.integers(1, 9))
    does = st.sampled_from(("come", "come", "drop", "twice", "other stream", "other total", "beyond", "before"))
    return total, size, window, draw(st.lists(st.tuples(does, st.integers(0, 100)), max_size=200))


@given(networks())
def test_every_part_comes_out_once_in_order_whatever_the_network_does(
    network: tuple[int, int, int, list[tuple[str, int]]],
) -> None:
    total, size, window, does = network
    order = InOrder(5, total, size, window)
    out: list[StreamPart] = []
    late: list[int] = []
    for what, draw in [*does, *[("come", 0)] * (2 * order.parts)]:
        missing = order.missing()
        if not missing:
            break
        assert len(missing) <= window and missing[-1] < order.handed + window
        number = (missing + late)[draw % len(missing + late)]
        fresh = number in missing
        if what in ("come", "twice"):
            assert order.take(part(number, total, size)) == fresh
            assert not order.take(part(number, total, size)), "the same again is no news"
            late.append(number)
        elif what == "other stream":
            assert not order.take(part(number, total, size, stream=6))
        elif what == "other total" and total < 60:
            assert not order.take(part(0, total + 1, size))
        elif what == "beyond" and order.handed + window < order.parts:
            assert not order.take(part(order.handed + window, total, size)), "nobody asked for it"
        elif what == "before" and order.handed:
            assert not order.take(part(order.handed - 1, total, size))
        out += order.hand_out()
        assert order.handed == len(out)
    assert order.over and [p.number for p in out] == list(range(order.parts))
    assert [g.answer for p in out for g in p.answers] == [str(i) for i in range(total)]


@pytest.mark.parametrize(("number", "count"), [(2, 8), (3, 4), (0, 4), (1, 0)])
def test_a_part_that_lies_about_itself_is_no_message(number: int, count: int) -> None:
    good = encode_message(part(0))
    raw = good.replace(b"\xa6number\x00", b"\xa6number" + bytes([number]))
    raw = raw.replace(b"answers\x98", b"answers" + bytes([0x90 | count])) if count != 8 else raw
    with pytest.raises(ValueError):
        decode_message(raw)
    assert decode_message(good) == part(0)


def test_samples_of_a_part_fit_a_message_and_those_of_a_stream_are_bounded() -> None:
    assert samples_a_part([[1.0] * 12] * 40) == 8
    assert samples_a_part([[0.5] * 4096] * 3) == 1 and 1 < samples_a_part([[0.5] * 1000, [1]]) < 8
    for samples, words in (([], "1 to 1024"), ([[1.0]] * 1025, "1 to 1024"), ([[1.0] * 4097], "takes 4096")):
        with pytest.raises(BadCommand, match=words):
            samples_a_part(samples)


# --- the conversation, on the loopback --------------------------------------------------------------------------------

Answer = Callable[[int, AskPart, Header], Message | None]


class Net:
    """Places that take what is sent to labels: those of two models, and that of the class, which is at A's."""

    def __init__(self, answer: Answer) -> None:
        self.sockets = {label: self._bound(at) for label, at in {**AT, CLASS: CLASS_AT}.items()}
        self.answer, self.over = answer, threading.Event()
        self.asked: list[tuple[int, AskPart, Header]] = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def _bound(self, at: str) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((at, self.port if hasattr(self, "port") else 0))
        self.port = one.getsockname()[1]
        return one

    def run(self) -> None:
        labels = {one: label for label, one in self.sockets.items()}
        while not self.over.is_set():
            for one in select.select(list(labels), [], [], 0.02)[0]:
                data, peer = one.recvfrom(65536)
                header, payload = decode(data)
                ask = decode_message(payload)
                assert isinstance(ask, AskPart)
                self.asked.append((labels[one], ask, header))
                reply = self.answer(labels[one], ask, header)
                if reply is not None:
                    out = Header(type=PacketType.RESPONSE, flags=Flag.REPLY, transfer_id=header.transfer_id)
                    speaker = self.sockets[A] if labels[one] == CLASS else one
                    speaker.sendto(encode(out, encode_message(reply)), peer)

    def close(self) -> None:
        self.over.set()
        self.thread.join()
        for one in self.sockets.values():
            one.close()


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Net]]:
    with contextlib.ExitStack() as stack:

        def make(answer: Answer) -> Net:
            made = Net(answer)
            stack.callback(made.close)
            monkeypatch.setattr(ports, "label_address", lambda label: AT.get(label, CLASS_AT))
            monkeypatch.setattr(ports, "AI_PORT", made.port)
            return made

        yield make


def answered(label: int, ask: AskPart, model: int = 0) -> StreamPart:
    """What a model says: of each sample its first number."""
    answers = [Given(answer=str(int(s[0]))) for s in ask.samples]
    model = model or (A if label == CLASS else label)
    return StreamPart(
        stream=ask.stream, total=ask.total, size=ask.size, number=ask.number, answers=answers,
        answered_by=f"m{model:x}", state=State(label=model),
    )  # fmt: skip


def stream(count: int, models: tuple[int, ...] = (A, B), window: int = 4) -> Streaming:
    def replicas() -> Replicas:
        if not models:
            raise DccRefused("no model of class t is good enough")
        return Replicas(label=CLASS, replicas=[Known(label=m, path_ms=1.0) for m in models])

    def emit(kind: str, /, **data: Any) -> None:
        pass

    return Streaming(Means("127.0.0.1", None, emit, replicas), "t", Need(), [[float(i)] for i in range(count)], window)


def said(one: Streaming) -> tuple[list[str], list[str]]:
    parts = list(one)
    return [g.answer for p in parts for g in p.answers], [p.answered_by for p in parts]


def test_the_first_part_goes_to_the_class_all_others_to_who_answered_it(net: Callable[[Answer], Net]) -> None:
    network = net(lambda label, ask, _: answered(label, ask))
    answers, by = said(stream(100))
    assert answers == [str(i) for i in range(100)] and set(by) == {f"m{A:x}"}
    assert [label for label, _, _ in network.asked] == [CLASS] + [A] * 12
    assert [ask.number for _, ask, _ in network.asked] == list(range(13)), "each was asked for once"
    assert len({h.transfer_id for _, _, h in network.asked}) == 13
    for _, ask, _ in network.asked:
        assert ask.number < ask.handed + 4, "never more than the window is on its way"


def test_what_is_lost_is_asked_for_again_and_nothing_else(net: Callable[[Answer], Net]) -> None:
    lost = {1: 1, 5: 2, 9: 1}

    def answer(label: int, ask: AskPart, _: Header) -> Message | None:
        if lost.get(ask.number, 0):
            lost[ask.number] -= 1
            return None
        return answered(label, ask)

    network = net(answer)
    one = stream(100)
    answers, _ = said(one)
    assert answers == [str(i) for i in range(100)] and one.repeats == 4
    asked = Counter(ask.number for _, ask, _ in network.asked)
    assert {n: c for n, c in asked.items() if c > 1} == {1: 2, 5: 3, 9: 2}
    again = [h for _, ask, h in network.asked if h.flags & Flag.REPEATED]
    assert len(again) == 4


def test_a_part_that_later_ones_have_passed_is_asked_for_at_once(net: Callable[[Answer], Net]) -> None:
    first = threading.Event()

    def answer(label: int, ask: AskPart, _: Header) -> Message | None:
        if ask.number == 2 and not first.is_set():
            first.set()
            return None
        return answered(label, ask)

    net(answer)
    began_s = time.monotonic()
    assert len(said(stream(80, window=6))[0]) == 80
    assert time.monotonic() - began_s < streaming.AGAIN_S[0]


@pytest.mark.parametrize("dies", [Refused(reason="retired"), Busy(reason="full", state=State(label=A)), None])
def test_the_rest_comes_from_another_model_in_order_and_nothing_twice(
    net: Callable[[Answer], Net], monkeypatch: pytest.MonkeyPatch, dies: Message | None
) -> None:
    monkeypatch.setattr(streaming, "SILENT_S", 0.4)
    network = net(lambda label, ask, _: dies if label != B and ask.number >= 4 else answered(label, ask))
    answers, by = said(stream(100))
    assert answers == [str(i) for i in range(100)]
    assert by == [f"m{A:x}"] * 4 + [f"m{B:x}"] * 9
    to_b = [ask.number for label, ask, _ in network.asked if label == B]
    assert sorted(to_b) == list(range(4, 13)), "only what was missing, each once"


def test_a_model_that_the_control_centre_knows_is_gone_is_left_sooner(net: Callable[[Answer], Net]) -> None:
    network = net(lambda label, ask, _: None if label != B and ask.number >= 4 else answered(label, ask))
    began_s = time.monotonic()
    one = stream(100, models=(B,))
    assert said(one)[0] == [str(i) for i in range(100)] and one.label == B
    assert time.monotonic() - began_s < streaming.SILENT_S and {label for label, _, _ in network.asked} == {CLASS, A, B}


def test_a_late_word_of_the_model_that_was_left_is_taken_and_leads_nobody_back(
    net: Callable[[Answer], Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SILENT_S", 0.3)
    network = net(lambda label, ask, _: None if label != B and ask.number >= 2 else answered(label, ask))
    one, out = stream(100), list[StreamPart]()
    while parts := one.more():
        out += parts
        if any(p.answered_by == f"m{B:x}" for p in parts) and not one.order.over:
            late = next(n for n in reversed(one.order.missing()))
            ask = AskPart(task="t", samples=[[float(i)] for i in range(late * 8, min(100, late * 8 + 8))],
                          stream=one.order.stream, total=100, size=8, number=late)  # fmt: skip
            one._heard(late, answered(A, ask), (AT[A], 1), one.means.clock())
            assert one.label == B
    one.close()
    assert [g.answer for p in out for g in p.answers] == [str(i) for i in range(100)]
    assert len({p.answered_by for p in out}) == 2 and {label for label, _, _ in network.asked} == {CLASS, A, B}


def test_who_still_has_a_part_waiting_is_not_left(net: Callable[[Answer], Net]) -> None:
    since: dict[int, float] = {}

    def answer(label: int, ask: AskPart, header: Header) -> Message | None:
        began_s = since.setdefault(ask.number, time.monotonic())
        if ask.number == 1 and time.monotonic() - began_s < 2.5:
            return State(label=A, in_flight=9) if header.flags & Flag.REPEATED else None
        return answered(label, ask)

    network = net(answer)
    assert len(said(stream(16))[0]) == 16
    assert {label for label, _, _ in network.asked} == {CLASS, A}


def test_a_stream_that_nobody_takes_is_refused_at_once_with_the_reason(net: Callable[[Answer], Net]) -> None:
    net(lambda label, ask, _: Busy(reason="64 queries wait here", state=State(label=A)))
    with pytest.raises(TerminalRefused, match="64 queries wait here"):
        list(stream(40, models=(A,)))
    with pytest.raises(TerminalRefused, match="no model of class t is good enough"):
        list(stream(40, models=()))


def test_a_part_that_never_comes_ends_the_stream_and_is_named(
    net: Callable[[Answer], Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PATIENCE_S", 1.0)
    net(lambda label, ask, _: None if ask.number == 2 else answered(label, ask))
    out: list[StreamPart] = []
    one = stream(30)
    with pytest.raises(StreamBroken, match=r"part 3 of 4 \(samples 17 to 24\) did not come in 1 s"):
        out.extend(one)
    out = []
    net(lambda label, ask, _: None if ask.number == 2 else answered(label, ask))
    with pytest.raises(StreamBroken), contextlib.closing(stream(30)) as two:
        while parts := two.more():
            out += parts
    assert [p.number for p in out] == [0, 1], "what came before it was handed out"


def test_who_takes_no_parts_is_sent_no_more_than_the_window(net: Callable[[Answer], Net]) -> None:
    network = net(lambda label, ask, _: answered(label, ask))
    with contextlib.closing(stream(400, window=4)) as one:
        for _ in range(3):
            assert one.more()
        handed = one.order.handed
        time.sleep(0.3)
        assert max(ask.number for _, ask, _ in network.asked) < handed + 4
        one.stop()
        assert one.more() == []


def test_parts_of_other_numbers_streams_and_shapes_are_left_aside(net: Callable[[Answer], Net]) -> None:
    """A model that says each thing wrongly first, then rightly when it is asked again."""
    seen: Counter[int] = Counter()

    def answer(label: int, ask: AskPart, _: Header) -> Message | None:
        seen[ask.number] += 1
        if seen[ask.number] > 1 or ask.number == 0:
            return answered(label, ask)
        lie = (
            {"stream": ask.stream ^ 1},
            {"number": ask.number - 1},
            {"total": ask.total + 8},
            {"size": 4, "total": 4 * (ask.total // 8)},
        )[ask.number % 4]
        about = {"stream": ask.stream, "total": ask.total, "size": ask.size, "number": ask.number} | lie
        count = about["size"]
        return StreamPart(**about, answers=[Given(answer="lie")] * count, answered_by="m", state=State(label=A))

    net(answer)
    answers, _ = said(stream(40))
    assert answers == [str(i) for i in range(40)]


def test_pairs_of_parts_are_in_order(net: Callable[[Answer], Net]) -> None:
    net(lambda label, ask, _: answered(label, ask))
    numbers = [p.number for p in stream(1024, window=8)]
    assert len(numbers) == 128 and all(b == a + 1 for a, b in pairwise(numbers))
