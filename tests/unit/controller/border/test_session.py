"""Border sessions over real unix sockets: versions, requests and replies, breaks, and garbage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.border.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Ask,
    AskFacilities,
    Done,
    Facilities,
    Facility,
    Hello,
    LinkState,
    Reply,
    pack,
)
from controller.border.session import Border, read_envelope, socket_path
from controller.errors import BorderError, PortTaken
from tests.fake_fabric import run


class Side:
    """One DCC's border, with what it was asked and what it said."""

    def __init__(self, own: int, others: list[int], folder: Path) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[Ask] = []
        self.border = Border([own], others, folder, self._emit)

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    async def serve(self, body: Ask) -> Reply:
        self.asked.append(body)
        if isinstance(body, AskFacilities):
            return Facilities(facilities=[Facility(kas=body.kas, handle=f"@{body.role}/0", attributes={"load": 0.5})])
        await asyncio.sleep(0.02)
        return Done()

    async def open(self) -> Side:
        await self.border.open(self.serve)
        return self


def test_requests_cross_and_many_may_be_under_way(tmp_path: Path) -> None:
    async def work() -> None:
        one, two = await Side(1, [2], tmp_path).open(), await Side(2, [1], tmp_path).open()
        slow = [one.border.ask(2, LinkState(kas=2, a_kas=1, b_kas=2, up=bool(i % 2))) for i in range(20)]
        quick = one.border.ask(2, AskFacilities(kas=2, role="mpvu"))
        *done, found = await asyncio.gather(*slow, quick)
        assert done == [Done()] * 20
        assert found == Facilities(facilities=[Facility(kas=2, handle="@mpvu/0", attributes={"load": 0.5})])
        assert await two.border.ask(1, AskFacilities(kas=1, role="mdfp"))
        assert not [e for e in one.events + two.events if e[0] in ("error", "warning")]
        one.border.close()
        two.border.close()
        assert not list(tmp_path.iterdir())

    run(work)


def test_a_dcc_that_starts_late_or_again_is_reached(tmp_path: Path) -> None:
    async def work() -> None:
        one = await Side(1, [2], tmp_path).open()
        question = asyncio.create_task(one.border.ask(2, AskFacilities(kas=2, role="mpvu"), timeout_s=5))
        await asyncio.sleep(0)
        two = await Side(2, [1], tmp_path).open()
        assert isinstance(await question, Facilities)
        two.border.close()
        two = await Side(2, [1], tmp_path).open()
        assert isinstance(await one.border.ask(2, AskFacilities(kas=2, role="mpvu")), Facilities)
        one.border.close()
        two.border.close()

    run(work)


def test_who_does_not_answer_in_time_is_named(tmp_path: Path) -> None:
    async def work() -> None:
        one = await Side(1, [2], tmp_path).open()
        with pytest.raises(BorderError, match=r"K-AS 2 did not answer AskFacilities within 0\.1 s"):
            await one.border.ask(2, AskFacilities(kas=2, role="mpvu"), timeout_s=0.1)
        with pytest.raises(BorderError, match="K-AS 9 is not in the plan"):
            await one.border.ask(9, AskFacilities(kas=9, role="mpvu"))
        one.border.close()

    run(work)


@pytest.mark.parametrize(
    "rubbish, why",
    [
        (b"\xff\xff\xff\xff", "larger than"),
        (b"\x00\x00\x00\x03abc", "no message"),
        (pack(1, Done()), "opened with Done"),
        (pack(0, Hello(version=99, kas=[2])), "version 99"),
        (pack(0, Hello(version=PROTOCOL_VERSION, kas=[2])) + b"\x00\x00\x00\x01\xc1", "no message"),
        (pack(0, Hello(version=PROTOCOL_VERSION, kas=[2])) + pack(3, Done()), "where a request belongs"),
    ],
)
def test_malformed_input_is_an_error_event_and_others_go_on(tmp_path: Path, rubbish: bytes, why: str) -> None:
    async def work() -> None:
        one, two = await Side(1, [2], tmp_path).open(), await Side(2, [1], tmp_path).open()
        _, writer = await asyncio.open_unix_connection(socket_path(tmp_path, 1))
        writer.write(rubbish)
        await writer.drain()
        while not (errors := [d["text"] for k, d in one.events if k == "error"]):
            await asyncio.sleep(0.01)
        assert why in errors[0]
        assert isinstance(await two.border.ask(1, AskFacilities(kas=1, role="mpvu")), Facilities)
        writer.close()
        one.border.close()
        two.border.close()

    run(work)


def test_two_control_centres_of_one_k_as_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        one = await Side(1, [], tmp_path).open()
        with pytest.raises(PortTaken, match="another control centre"):
            await Side(1, [], tmp_path).open()
        one.border.close()
        socket_path(tmp_path, 1).touch()  # left over by one that was killed
        again = await Side(1, [], tmp_path).open()
        again.border.close()

    run(work)


def test_a_frame_larger_than_allowed_is_not_even_read(tmp_path: Path) -> None:
    async def work() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(BorderError, match="larger"):
            await read_envelope(reader)

    run(work)
