"""Engines of one's own: found by name, kept to their contract, and never the end of a control centre."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.engines.training.tag import Choice
from controller.errors import PluginError
from controller.plugins import engines as guarded
from controller.plugins.contracts import CONTRACTS, read_answer
from controller.plugins.engines import STRIKES, Engines
from controller.plugins.loading import load
from controller.plugins.outside import Outside
from controller.plugins.setup import Setup, read
from controller.values.decisions import Assessment, Hyper, JobView, Measured, Option, Plan, Request
from controller.values.errors import EngineError
from controller.values.knowledge import ModelAt, Node
from controller.values.metrics import OwnMetric
from packets.queries import Need
from topologies.own.files import absolute

ROOT = Path(__file__).parents[4]
REQUEST = Request(task="t", groups=["a", "b"], broad_accuracy=0.5)
OPTIONS = [
    Option(kas=k, handle=f"h{k}", mix={"a": 0.5, "b": 0.5}, samples=500, epoch_s=0.5, reach_s=0.1 * k, trust=1 - k / 10)
    for k in (1, 2, 3)
]
ASKED = {
    "tfam": (REQUEST, OPTIONS, 2),
    "tag": (REQUEST, OPTIONS, None, None, None),
    "hpo": (REQUEST, 0, 500),
    "mtrce": (REQUEST, JobView(), OPTIONS, None),
    "gate": (REQUEST, None, Measured(broad=0.5, per_group={"a": 0.5, "b": 0.5}, samples=100)),
    "qfam": ("t", [ModelAt(node="m", task="t", accuracy={"broad": 0.9})], Need(), {"m": 5.0}),
    "qirce": ([ModelAt(node="m", task="t", accuracy={"broad": 0.9}, latency_ms=2.0)], {"m": 5.0}),
    "drift": (Measured(broad=0.9, per_group={}, samples=500), Measured(broad=0.7, per_group={}, samples=500), {}),
    "mdo": ("t", 1000, [Node(name="m", role="mdfp", kas=1, address="10.1.0.1", attributes={})]),
}


class Told:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, kind: str, /, **data: Any) -> None:
        assert kind == "engine.failed"
        self.events.append(data)


def ask(engines: Engines) -> Plan:
    return asyncio.run(engines.plan(REQUEST, JobView(), OPTIONS, None, {}))


def test_a_question_that_nobody_waits_for_any_more_does_not_answer_the_next_one(tmp_path: Path) -> None:
    async def work() -> Hyper:
        engine = Outside("hpo", str(file) + ":hyper")
        try:
            await engine.ready()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await engine.ask((REQUEST, 1, 500))
            return msgspec.convert(await engine.ask((REQUEST, 2, 500)), Hyper)
        finally:
            await engine.end()

    file = tmp_path / "mine.py"
    file.write_text(
        "import time\nfrom controller.values.decisions import Hyper\ndef hyper(request, visit, samples):\n"
        "    time.sleep(0.5 if visit == 1 else 0)\n    return Hyper(epochs=visit, batch_size=8, learning_rate=0.1)\n"
    )
    assert asyncio.run(work()).epochs == 2


def test_metrics_of_ones_own_come_with_the_set_up(tmp_path: Path) -> None:
    watts = OwnMetric(source="mine.py:power", category="computing", best=20.0, worst=200.0)
    file = tmp_path / "engines.json"
    file.write_bytes(msgspec.json.encode(Setup.of({}, [], {"power_w": watts})))
    assert read(file).metrics == {"power_w": watts} and read(None).metrics == {}
    file.write_text('{"cats": {"power_w": {"source": "mine.py:power", "category": "warmth", "best": 1, "worst": 2}}}')
    with pytest.raises(PluginError, match="warmth"):
        read(file)


def own(tmp_path: Path, body: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(body)
    return f"{file}:plan"


def outside(spec: str, limit_s: float = 1.0) -> Engines:
    return Engines({"mtrce": spec}, {("mtrce", spec): Outside("mtrce", spec, limit_s)})


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_default_engines_keep_their_own_contracts(name: str) -> None:
    import msgspec

    contract, asked = CONTRACTS[name], ASKED[name]
    answer = contract.of_default(*asked)
    assert read_answer(contract, asked, msgspec.to_builtins(answer)) == answer
    crossed = msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=contract.arguments)
    assert contract.of_default(*crossed) == answer, "what crosses to a process of its own is what was asked"


STEP = {"epochs": 1.0, "batch_size": 8, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("name", "answer", "fault"),
    [
        ("mtrce", ["h9"], "'h9', which is not on offer"),
        ("mtrce", [], "no step"),
        ("mtrce", None, "no MTRCE answer"),
        ("hpo", Hyper(epochs=float("nan"), batch_size=8, learning_rate=0.1), "epochs nan"),
        ("hpo", Hyper(epochs=1, batch_size=0, learning_rate=0.1), "batch_size 0"),
        ("hpo", Hyper(epochs=1, batch_size=8, learning_rate=-1), "learning_rate -1"),
        ("tfam", Assessment(admitted=True, reasons=[], nearest={}, predicted={"broad": 7.0}), "out of range"),
        ("tfam", Assessment(admitted=False, reasons=[], nearest={}, predicted={}), "without a reason"),
        ("tag", Choice("magic", "", []), "'magic' is none of"),
        ("gate", [1], "no MPVU gate answer"),
        ("qirce", [("x", 1)], "hosts no such model"),
        ("qirce", [("m", 0)], "weight 0"),
        ("mdo", "x", "no MDFP on offer"),
        ("qfam", "yes", "no Q-FAM answer"),
    ],
)
def test_nonsense_is_told_from_an_answer(name: str, answer: Any, fault: str) -> None:
    import msgspec

    with pytest.raises(ValueError, match=fault):
        read_answer(CONTRACTS[name], ASKED[name], msgspec.to_builtins(answer))


def test_a_place_below_the_trust_floor_is_no_answer() -> None:
    import msgspec

    strict = msgspec.structs.replace(REQUEST, trust_floor=0.85)
    with pytest.raises(ValueError, match="'h2', which is below the trust floor"):
        read_answer(CONTRACTS["mtrce"], (strict, JobView(), OPTIONS, None), ["h1", "h2"])


def test_the_template_routes_to_the_nearest() -> None:
    engines = outside(f"{ROOT / 'examples/mtrce_nearest.py'}:plan", 5.0)
    engines.emit = told = Told()

    async def work() -> list[Plan]:
        found = [await engines.plan(REQUEST, JobView(), OPTIONS, None, {}) for _ in range(2)]
        await engines.close()
        return found

    first, again = asyncio.run(work())
    assert [s.option.handle for s in first.steps] == ["h1", "h2", "h3"] and told.events == []
    assert first == again, "the same question, the same answer"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def plan(*a):\n    raise RuntimeError('boom')", "RuntimeError: boom (mine.py, line 2)"),
        ("import time\ndef plan(*a):\n    time.sleep(1e6)", "no answer within 0.3 s"),
        ("def plan(*a):\n    while True: pass", "no answer within 0.3 s"),
        ("import os\ndef plan(*a):\n    os._exit(3)", "its process ended"),
        ("def plan(*a):\n    print('hello')\n    return ['nowhere']", "'nowhere', which is not on offer"),
        ("def plan(*a):\n    return object()", "Encoding objects of type object is unsupported"),
        ("def plan(*a):\n    raise SystemExit(2)", "SystemExit"),
        ("def other(*a):\n    pass", "has no function 'plan'"),
        ("syntax error", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_bad_engine_costs_its_decisions_and_is_given_up(tmp_path: Path, body: str, fault: str) -> None:
    engines = outside(own(tmp_path, body), 0.3)
    engines.emit = told = Told()
    expected = ask(Engines())

    async def work() -> None:
        for _ in range(STRIKES + 2):
            assert await engines.plan(REQUEST, JobView(), OPTIONS, None, {}) == expected, "the default decides"
        await engines.close()

    asyncio.run(work())
    assert [fault in e["fault"] for e in told.events] == [True] * STRIKES
    assert [e["given_up"] for e in told.events] == [False] * (STRIKES - 1) + [True]
    assert "the default decided" in told.events[0]["text"]


def test_a_good_answer_makes_up_for_earlier_failures() -> None:
    answers = iter([["nowhere"], ["h1"], ["nowhere"], ["nowhere"], ["h2"]])
    engines = Engines.of(mtrce=lambda *a: next(answers))
    engines.emit = told = Told()
    assert [ask(engines).steps[0].option.handle for _ in range(5)][1::3] == ["h1", "h2"]
    assert len(told.events) == 3 and not any(e["given_up"] for e in told.events)


def test_that_there_is_no_route_is_an_answer(tmp_path: Path) -> None:
    body = "from controller.values.errors import EngineError\ndef plan(*a):\n    raise EngineError('nothing left')"
    engines = outside(own(tmp_path, body), 5.0)
    engines.emit = told = Told()
    with pytest.raises(EngineError, match="nothing left"):
        ask(engines)
    assert told.events == []


def test_a_job_chooses_among_what_the_control_centre_has() -> None:
    engines = Engines(own={("mtrce", "mine"): lambda *a: ["h3"]})
    assert engines.missing({"mtrce": "mine", "gate": "default"}) == ""
    assert "engine mtrce=other" in engines.missing({"mtrce": "other"})
    assert "engine magic=mine" in engines.missing({"magic": "mine"})
    chosen = asyncio.run(engines.plan(REQUEST, JobView(), OPTIONS, None, {"mtrce": "mine"}))
    assert chosen.steps[0].option.handle == "h3" != ask(engines).steps[0].option.handle


def test_hpo_of_ones_own_tunes_what_another_engine_planned() -> None:
    mine = Hyper(epochs=3, batch_size=16, learning_rate=0.01)
    engines = Engines.of(hpo=lambda request, visit, samples: mine)
    planned = Hyper(epochs=1, batch_size=8, learning_rate=0.1)
    assert asyncio.run(engines.tuned(planned, REQUEST, 0, 500, {})) == mine
    assert asyncio.run(Engines().tuned(planned, REQUEST, 0, 500, {})) == planned


@pytest.mark.parametrize(
    ("engine", "spec", "said"),
    [
        ("mtrec", "default", "did you mean 'mtrce'?"),
        ("mtrce", "nowhere.py:plan", "there is no file nowhere.py"),
        ("mtrce", "json:nothing", "json has no function 'nothing'"),
        ("mtrce", "json:__name__", "is a str, not a function"),
        ("mtrce", "no_such_module:plan", "cannot be loaded: ModuleNotFoundError"),
        ("mtrce", "mine.py", "mine.py is a file; say which function of it: mine.py:FUNCTION"),
        ("mtrce", "greedy", "no entry point of daitn.engines"),
    ],
)
def test_a_wrong_name_is_one_line(engine: str, spec: str, said: str) -> None:
    with pytest.raises(PluginError, match=said.replace(".", r"\.").replace("?", r"\?")) as caught:
        load(engine, spec)
    assert "\n" not in str(caught.value)


def test_an_entry_point_is_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from controller.plugins import loading

    point = EntryPoint("calm", "controller.engines.routing.mtrce:plan", "daitn.engines")
    monkeypatch.setattr(loading, "entry_points", lambda group: [point])
    assert load("mtrce", "calm") is CONTRACTS["mtrce"].of_default.__globals__["_load"]("routing.mtrce:plan")


def test_paths_mean_the_same_from_anywhere(tmp_path: Path) -> None:
    assert absolute("mine.py:plan", tmp_path) == f"{tmp_path / 'mine.py'}:plan"
    assert [absolute(s, tmp_path) for s in ("default", "json:loads", "calm")] == ["default", "json:loads", "calm"]
    assert guarded.DEFAULT == "default"
