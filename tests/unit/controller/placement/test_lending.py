"""Engines that are borrowed: the lender decides, a second one where the first is away, and nobody else ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from controller.border.kbgp import local
from controller.border.kbgp.border import Gateway, KbgpBorder
from controller.border.lending import MAX_QUESTION_BYTES, AskEngine, Lent
from controller.border.messages import Ask, Done, No, Reply, pack, unpack
from controller.errors import BorderError, LendingError
from controller.placement.borrowing import AWAY_S, Borrowing
from controller.placement.kinds import NOT_LENT, KasKind
from controller.placement.lending import MOST_WAITING, Lending
from controller.plugins.contracts import CONTRACTS
from controller.plugins.engines import Engines
from controller.values.decisions import Assessment, JobView, Load, Option, Plan, Request
from controller.values.errors import EngineError, NoLender
from packets.events import silent
from packets.kbgp.messages import Answer
from packets.messages import Refused, Submit
from tests.fake_fabric import World, run
from tests.unit.controller.plugins.test_plugins import ASKED
from tests.unit.controller.training.test_jobs import PLAN, SPEC, Life, engines, one_step_plan

OPTION = Option(kas=1, handle="h", mix={"a": 1.0}, samples=500, epoch_s=0.5, reach_s=0.1)
KINDS = {1: KasKind(kind="non_standalone", borrows={"tfam": [4, 2]}, timeout_s=0.2)}
QUESTION = msgspec.msgpack.encode(ASKED["tfam"])


def never(*_: object) -> Assessment:
    raise AssertionError("the K-AS has no T-FAM of its own")


def saying(**changes: Any) -> Engines:
    """Engines whose T-FAM always says the same."""
    verdict: dict[str, Any] = {"admitted": True, "reasons": [], "nearest": {}, "predicted": {"broad": 0.7}} | changes
    return Engines.of(tfam=lambda request, options, mpvus: Assessment(**verdict), mtrce=one_step_plan)


def world(of_lender: Engines | None = None) -> World:
    """Four K-AS of which the first has no T-FAM; K-AS 4 lends it one, else K-AS 2."""
    own = {1: Engines.of(tfam=never, mtrce=one_step_plan), 2: engines(), 3: engines(), 4: of_lender or engines()}
    return World(PLAN, engines=own, kinds=KINDS)


def decided_by(life: Life) -> dict[str, Any]:
    (assessed,) = life.world.of("job.assessed")
    return dict(assessed["by"])


# --- in a network


def test_a_k_as_without_t_fam_has_its_jobs_admitted_by_another() -> None:
    async def work() -> None:
        life = Life(world())
        reply = await life.begin()
        assert reply.admitted and reply.predicted == {"broad": 0.9}
        assert decided_by(life) == {"kas": 4, "ms": 0.0, "own": True, "before": [], "terminal": ""}
        (lent,), (borrowed,) = life.world.of("engine.lent"), life.world.of("engine.borrowed")
        assert (lent["engine"], lent["kas"], lent["to"], lent["fault"]) == ("tfam", 4, 1, "")
        assert (borrowed["engine"], borrowed["kas"], borrowed["lender"]) == ("tfam", 1, 4)
        order = await life.hop()
        assert order.action == "train", "the route is MTRCE's, which is here"

    run(work)


def test_a_rejection_is_the_lenders_too() -> None:
    async def work() -> None:
        life = Life(world(saying(admitted=False, reasons=["not here"], nearest={"broad_accuracy": 0.5})))
        reply = await life.begin()
        assert (reply.admitted, reply.reasons, reply.nearest) == (False, ["not here"], {"broad_accuracy": 0.5})
        assert decided_by(life)["kas"] == 4

    run(work)


async def sleepy(*_: object) -> Assessment:
    await asyncio.sleep(5)
    raise AssertionError("nobody waits for it")


def muted(w: World) -> None:
    serving = w.by_kas[1].serving
    through = serving._ask_border

    async def ask(kas: int, body: Ask) -> Reply:
        if kas == 4 and isinstance(body, AskEngine):
            raise BorderError("the DCC of K-AS 4 did not answer AskEngine within 5 s")
        return await through(kas, body)

    serving._ask_border = ask


def unlent(w: World) -> None:
    w.by_kas[4].lending.lends = {"tfam": [3]}


def lying(w: World) -> None:
    w.by_kas[4].serving.on(AskEngine, lambda ask: Lent(answer=b"\xc1"))


def elsewhere(w: World) -> None:
    w.by_kas[4].serving.on(AskEngine, lambda ask: Done())


@pytest.mark.parametrize(
    ("spoil", "of_lender", "why"),
    [
        (muted, None, "K-AS 4: the DCC of K-AS 4 did not answer"),
        (unlent, None, "K-AS 4: K-AS 4 lends no tfam to K-AS 1"),
        (lying, None, "K-AS 4: its answer is none"),
        (elsewhere, None, "K-AS 4: it answered with Done"),
        (lambda w: None, Engines.of(tfam=sleepy), "K-AS 4: no answer within 0.2 s"),
        (lambda w: None, Engines.of(tfam=lambda *_: {"admitted": "perhaps"}), "K-AS 4: its T-FAM gave no answer"),
        (lambda w: None, Engines.of(tfam=lambda *_: 1 // 0), "K-AS 4: its T-FAM gave no answer"),
    ],
    ids=["mute", "unlent", "lying", "elsewhere", "slow", "nonsense", "broken"],
)
def test_where_the_first_lender_gives_no_answer_the_second_decides(
    spoil: Callable[[World], None], of_lender: Engines | None, why: str
) -> None:
    async def work() -> None:
        life = Life(world(of_lender))
        spoil(life.world)
        assert (await life.begin()).admitted
        by = decided_by(life)
        assert by["kas"] == 2 and len(by["before"]) == 1
        assert by["before"][0].startswith(why)

    run(work)


def test_where_all_are_silent_nothing_is_admitted_and_the_reason_names_them() -> None:
    async def work() -> None:
        life = Life(world())
        life.world.mute = {4, 2}
        reply = await life.begin()
        (reason,) = reply.reasons
        assert not reply.admitted and life.object_id == 0
        assert reason.startswith("K-AS 1 has no T-FAM of its own, nobody lent it one: K-AS 4: ")
        assert "K-AS 2: " in reason and "\n" not in reason
        (assessed,) = life.world.of("job.assessed")
        assert (assessed["admitted"], assessed["by"]) == (False, None)
        (borrowed,) = life.world.of("engine.borrowed")
        assert borrowed["lender"] == 0 and len(borrowed["before"]) == 2

    run(work)


def test_a_job_cannot_choose_an_engine_that_its_home_borrows() -> None:
    async def work() -> None:
        life = Life(world())
        await life.begin()
        spec = msgspec.structs.replace(SPEC, engines={"tfam": "own"})
        answer = await life.world.tell("owner1", Submit(name="owner1", spec=spec))
        assert isinstance(answer, Refused) and "no tfam of its own" in answer.reason

    run(work)


def test_mtrce_that_is_borrowed_plans_and_where_nobody_lends_it_the_job_comes_home_and_says_so() -> None:
    async def work() -> None:
        kinds = {1: KasKind(kind="non_standalone", borrows={"mtrce": [3]}, timeout_s=0.2)}
        life = Life(World(PLAN, engines=dict.fromkeys((1, 2, 3, 4), engines()), kinds=kinds))
        await life.begin()
        await life.train(await life.hop())
        (decided,) = [d for d in life.world.of("job.decided") if d["action"] == "train"]
        assert decided["by"]["kas"] == 3
        await life.hop()
        await life.verify({"broad": 0.6, "per_group": {"cardiology": 0.4}})
        life.world.mute = {3}
        await life.play({"broad": 0.6, "per_group": {"cardiology": 0.4}})
        assert "no MTRCE of its own" in str(life.finished["reason"])

    run(work)


# --- one to one


class Pair:
    """A borrower and its lenders, with a clock that is set by hand."""

    def __init__(self, lenders: Mapping[int, Engines], engine: str = "tfam", timeout_s: float = 5.0) -> None:
        self.now_s, self.asked, self.silent = 0.0, list[int](), set[int]()
        self.lendings = {k: Lending(e, {engine: [9]}, lambda: self.now_s, silent) for k, e in lenders.items()}
        self.borrowing = Borrowing(9, {engine: list(lenders)}, timeout_s, self._ask, lambda: self.now_s, silent)

    async def _ask(self, body: Ask) -> Reply:
        assert isinstance(body, AskEngine)
        self.asked.append(body.kas)
        if body.kas in self.silent:
            raise BorderError("away")
        try:
            reply: Reply = await self.lendings[body.kas].answer(body)
        except LendingError as error:
            reply = No(reason=str(error))
        read = unpack(pack(1, reply)[4:]).body
        assert isinstance(read, Reply)
        return read


def in_process(name: str) -> Engines:
    return Engines.of(**{name: CONTRACTS[name].of_default})


@pytest.mark.parametrize("name", sorted(CONTRACTS.keys() - set(NOT_LENT)))
def test_every_engine_can_be_lent_and_says_what_it_says_at_home(name: str) -> None:
    pair = Pair({4: in_process(name)}, name)
    found = asyncio.run(pair.borrowing.decide(name, ASKED[name]))
    expected = CONTRACTS[name].of_default(*ASKED[name])
    if isinstance(found, msgspec.Struct) and hasattr(found, "by"):
        assert found.by is not None and found.by.kas == 4
        found = msgspec.structs.replace(found, by=None)
    assert msgspec.to_builtins(found) == msgspec.to_builtins(expected)


def test_what_a_lender_says_that_there_is_none_of_is_an_answer_and_no_other_is_asked() -> None:
    def none(*_: object) -> Assessment:
        raise EngineError("nowhere to go")

    pair = Pair({4: Engines.of(tfam=none), 1: in_process("tfam")})
    with pytest.raises(EngineError, match="nowhere to go") as caught:
        asyncio.run(pair.borrowing.decide("tfam", ASKED["tfam"]))
    assert not isinstance(caught.value, NoLender) and pair.asked == [4]


def test_an_order_of_places_is_made_a_plan_that_says_who_lent_it() -> None:
    async def work() -> None:
        handle = ASKED["mtrce"][2][0].handle
        plan = await Pair({4: Engines.of(mtrce=lambda *_: [handle])}, "mtrce").borrowing.decide("mtrce", ASKED["mtrce"])
        assert isinstance(plan, Plan) and [s.option.handle for s in plan.steps] == [handle]
        assert plan.by is not None and (plan.by.kas, plan.by.own) == (4, True)

    run(work)


def test_a_plan_that_changes_what_is_on_offer_is_no_answer() -> None:
    def elsewhere(request: Request, view: JobView, options: Sequence[Option], load: Load | None) -> Plan:
        plan: Plan = CONTRACTS["mtrce"].of_default(request, view, options, load)
        step = plan.steps[0]
        moved = msgspec.structs.replace(step, option=msgspec.structs.replace(step.option, kas=7))
        return msgspec.structs.replace(plan, steps=[moved])

    pair = Pair({4: Engines.of(mtrce=elsewhere)}, "mtrce")
    with pytest.raises(NoLender, match="K-AS 4: its plan changes what is on offer"):
        asyncio.run(pair.borrowing.decide("mtrce", ASKED["mtrce"]))


@pytest.mark.parametrize("what", ["predicted", "nearest"])
def test_a_verdict_of_very_many_figures_is_no_answer(what: str) -> None:
    pair = Pair({4: saying(**{what: {f"f{n}": 0.5 for n in range(1000)}})})
    with pytest.raises(NoLender, match="K-AS 4: its T-FAM gave no answer"):
        asyncio.run(pair.borrowing.decide("tfam", ASKED["tfam"]))


def test_what_a_lender_says_is_told_in_one_line() -> None:
    def none(*_: object) -> Assessment:
        raise EngineError("nowhere\nto go")

    pair = Pair({4: Engines.of(tfam=none)})
    with pytest.raises(EngineError, match="nowhere to go"):
        asyncio.run(pair.borrowing.decide("tfam", ASKED["tfam"]))


def test_who_gave_no_answer_is_asked_last_for_a_while() -> None:
    async def work() -> None:
        pair = Pair({4: in_process("tfam"), 1: in_process("tfam")})
        pair.silent = {4}
        for _ in range(2):
            await pair.borrowing.decide("tfam", ASKED["tfam"])
        assert pair.asked == [4, 1, 1]
        pair.silent, pair.now_s = set(), AWAY_S + 1
        await pair.borrowing.decide("tfam", ASKED["tfam"])
        assert pair.asked == [4, 1, 1, 4]

    run(work)


def test_a_question_that_no_border_would_carry_is_not_asked() -> None:
    pair = Pair({4: in_process("tfam")})
    many = [msgspec.structs.replace(OPTION, handle=f"{n:x}" * 8) for n in range(20_000)]
    with pytest.raises(NoLender, match="too large"):
        asyncio.run(pair.borrowing.decide("tfam", (ASKED["tfam"][0], many, 2)))
    assert pair.asked == []


# --- the lender's side


def lending(own: Engines) -> Lending:
    return Lending(own, {"tfam": [2]}, lambda: 0.0, silent)


def question(**changes: Any) -> AskEngine:
    asked: dict[str, Any] = {"kas": 4, "from_kas": 2, "engine": "tfam", "arguments": QUESTION} | changes
    return AskEngine(**asked)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"from_kas": 3}, "lends no tfam to K-AS 3"),
        ({"engine": "mtrce"}, "lends no mtrce to K-AS 2"),
        ({"engine": "no-such"}, "lends no no-such"),
        ({"arguments": b""}, "no question to T-FAM"),
        ({"arguments": QUESTION[:-3]}, "no question to T-FAM"),
        ({"arguments": b"\x91" * 5000}, "no question to T-FAM"),
        ({"arguments": msgspec.msgpack.encode([1, 2, 3])}, "no question to T-FAM"),
    ],
)
def test_what_is_not_lent_or_no_question_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(LendingError, match=why):
        asyncio.run(lending(saying()).answer(question(**changes)))


def test_a_lender_that_is_busy_says_so_at_once() -> None:
    async def work() -> None:
        go_on = asyncio.Event()

        async def slow(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
            await go_on.wait()
            return Assessment(admitted=True, reasons=[], nearest={}, predicted={})

        lender = lending(Engines.of(tfam=slow))
        waiting = [asyncio.ensure_future(lender.answer(question())) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(LendingError, match=f"{MOST_WAITING} questions wait"):
            await lender.answer(question())
        go_on.set()
        assert all(isinstance(lent, Lent) for lent in await asyncio.gather(*waiting))
        assert isinstance(await lender.answer(question()), Lent)

    run(work)


def test_the_default_is_lent_from_a_process_of_its_own() -> None:
    async def work() -> None:
        lender = lending(Engines())
        try:
            await lender.warm()
            lent = await lender.answer(question())
        finally:
            await lender.close()
        assert msgspec.msgpack.decode(lent.answer, type=Assessment) == CONTRACTS["tfam"].of_default(*ASKED["tfam"])
        assert not lent.own

    run(work)


# --- on the wire


def test_question_and_answer_cross_as_they_are_and_what_is_out_of_bounds_does_not() -> None:
    for body in (question(), Lent(answer=b"x", took_ms=3.0, own=True), Lent(none="none")):
        assert unpack(pack(7, body)[4:]).body == body
    too_long = {"arguments": b"x" * (MAX_QUESTION_BYTES + 1)}
    wrong: list[dict[str, Any]] = [{"engine": ""}, {"engine": "x" * 17}, too_long, {"from_kas": 0}]
    for changes in wrong:
        with pytest.raises(msgspec.DecodeError):
            unpack(pack(7, question(**changes))[4:])


class Heard(Gateway):
    """A gateway's speaker, played."""

    def __init__(self) -> None:
        self.said: list[local.Word] = []

    def send(self, word: local.Word) -> None:
        self.said.append(word)


@pytest.mark.parametrize(("origin", "code"), [(2, Answer.ANSWERED), (3, Answer.REFUSED)])
def test_nobody_borrows_in_anothers_name(origin: int, code: Answer) -> None:
    async def serve(ask: Ask) -> Reply:
        return Lent(answer=b"x")

    border, gateway = KbgpBorder([4], [1, 2, 3], {}, silent), Heard()
    asked = local.Question(id=1, to_kas=4, left_ms=1000, body=pack(0, question())[4:], trail=[origin, 1])
    asyncio.run(border._answer(4, gateway, asked, serve))
    (said,) = gateway.said
    assert isinstance(said, local.Result) and said.code == code
