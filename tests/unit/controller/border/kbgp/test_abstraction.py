"""What leaves a K-AS about its terminals: sums with bounds over enough of them, the best of its models, no node."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.border.kbgp.abstraction import Policy, abstract, bounds
from controller.values.knowledge import Attribute, ModelAt, Node
from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, contradictions, text_to_sign


def node(name: str, role: str = "data", kas: int = 1, **attributes: object) -> Node:
    held = {n: Attribute(value, 0.0) for n, value in attributes.items()}
    return Node(name=name, role=role, kas=kas, address=f"10.1.1.{len(name)}", attributes=held)


HOSPITALS = [
    node(f"secret-{i}", samples=1000 + i, group_shares={"cardiology": 0.2, f"only-{i}": 0.8},
         compute_samples_per_s=100.0 * i, queue=1)
    for i in range(1, 5)
]  # fmt: skip


def test_sums_of_enough_terminals_are_told_with_bounds() -> None:
    told = abstract(1, HOSPITALS, [])
    assert told.terminals == {"data": 4}
    assert told.data is not None and (told.data.samples.low, told.data.samples.high) == (4000, 4100)
    assert told.data.shares == {"cardiology": 0.2}, "what one alone has is not told"
    assert told.compute is not None and told.compute.low == told.compute.high == 500, "half of it waits"


def test_nothing_names_a_node() -> None:
    text = msgspec.json.encode(abstract(1, HOSPITALS, [ModelAt(node="secret-1", task="t", accuracy={}, kas=1)]))
    assert b"secret" not in text and b"10.1.1" not in text and b"only" not in text


@pytest.mark.parametrize("count, told", [(0, False), (2, False), (3, True)])
def test_a_sum_over_too_few_is_not_told(count: int, told: bool) -> None:
    knowledge = abstract(1, HOSPITALS[:count], [], Policy(least=3))
    assert (knowledge.data is not None) is told and (knowledge.compute is not None) is told


def test_who_cannot_be_reached_and_who_is_elsewhere_does_not_count() -> None:
    away = [node("a", samples=9, reachable=False), node("b", kas=2, samples=9)]
    assert abstract(1, [*HOSPITALS, *away], []) == abstract(1, HOSPITALS, [])


def test_a_small_change_is_no_news() -> None:
    before = abstract(1, HOSPITALS, [])
    one = node("secret-1", samples=1011, group_shares={"cardiology": 0.2}, compute_samples_per_s=100.0, queue=1)
    assert abstract(1, [one, *HOSPITALS[1:]], []) == before


def test_the_best_of_the_models_of_each_task() -> None:
    at = [
        ModelAt(node="m1", task="triage", accuracy={"broad": 0.917, "cardiology": 0.8}, latency_ms=4.0, kas=1),
        ModelAt(node="m2", task="triage", accuracy={"broad": 0.85, "cardiology": 0.969}, latency_ms=2.14, kas=1),
        ModelAt(node="m3", task="triage", accuracy={"broad": 1.0}, kas=2),
    ]
    told = abstract(1, [node("m1", "mdfp"), node("m2", "mdfp")], at)
    assert told.models["triage"].models == 2
    assert told.models["triage"].best_accuracy == {"broad": 0.91, "cardiology": 0.96}
    assert told.models["triage"].least_ms == pytest.approx(2.2)
    assert not list(contradictions(told))


@given(amount=st.floats(1e-6, 1e12))
def test_the_truth_is_between_the_bounds_and_they_are_close(amount: float) -> None:
    found = bounds(amount, 2)
    assert found.low <= amount <= found.high and found.high - found.low <= 0.11 * amount


def test_a_large_k_as_fits_a_message() -> None:
    groups = {f"group number {i:03}": 1 / 300 for i in range(300)}
    nodes = [node(f"h{i}", samples=100, group_shares=groups) for i in range(100)] + [node("m", "mdfp")]
    accuracy = {"broad": 0.5} | {group: 0.5 for group in groups}
    models = [ModelAt(node="m", task=f"task {i:03}" + "x" * 40, accuracy=accuracy, kas=1) for i in range(200)]
    assert len(text_to_sign(abstract(1, nodes, models))) < MAX_KNOWLEDGE_BYTES
