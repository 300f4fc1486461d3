"""QS-QRRT: which deployed models of a task can be asked."""

from __future__ import annotations

from typing import Any

from controller.topology.krrm import Krrm
from controller.topology.qrrt import QrrtA, qs_qrrt
from controller.values.knowledge import ModelAt
from topologies.plan import DomainPlan

PLAN = DomainPlan(kas=[1, 3], switches=[], hosts=[], links=[], borders=[], kas_links=[])


def a_map() -> Krrm:
    krrm = Krrm()
    tell(krrm, "mdfp1", 1, models=[{"task": "vignettes", "accuracy": {"broad": 0.9}}], load=0.3, latency_ms=2.0)
    tell(krrm, "mdfp3", 3, models=["vignettes", "table"], metrics={"power_w": 61.5})
    tell(krrm, "mdfp2", 2, models=["vignettes"])  # of a K-AS that is not ours
    krrm.update("h11", "data", 1, "10.1.1.9", {"models": ["vignettes"]}, 0.0)  # no MDFP
    return krrm


def tell(krrm: Krrm, name: str, kas: int, now_s: float = 0.0, **attributes: Any) -> None:
    krrm.update(name, "mdfp", kas, "10.1.1.1", attributes, now_s)


def test_the_models_of_a_task_and_what_is_known_of_them() -> None:
    topology = qs_qrrt(a_map(), PLAN, "vignettes", now_s=4.0)
    assert topology.models == [
        ModelAt(node="mdfp1", task="vignettes", accuracy={"broad": 0.9}, load=0.3, latency_ms=2.0, kas=1, age_s=4.0),
        ModelAt(node="mdfp3", task="vignettes", accuracy={}, kas=3, age_s=4.0, metrics={"power_w": 61.5}),
    ]
    assert [m.node for m in qs_qrrt(a_map(), PLAN, "table", 0.0).models] == ["mdfp3"]
    assert qs_qrrt(a_map(), PLAN, "poetry", 0.0).models == []


def test_what_an_mpvu_measured_wins_over_what_the_mdfp_says() -> None:
    verified = {"mdfp1": {"broad": 0.7}, "mdfp3": {"broad": 0.8}}
    models = qs_qrrt(a_map(), PLAN, "vignettes", 0.0, verified=verified).models
    assert [m.accuracy for m in models] == [{"broad": 0.7}, {"broad": 0.8}]


def test_a_node_that_is_gone_or_not_trusted_is_not_asked() -> None:
    krrm = a_map()
    tell(krrm, "mdfp1", 1, reachable=False)
    tell(krrm, "mdfp3", 3, trust=0.3)
    assert [m.node for m in qs_qrrt(krrm, PLAN, "vignettes", 0.0).models] == ["mdfp3"]
    assert qs_qrrt(krrm, PLAN, "vignettes", 0.0, trust_floor=0.5).models == []


def test_it_is_cut_anew_only_when_the_map_changed() -> None:
    krrm = a_map()
    unit = QrrtA(krrm, PLAN, "vignettes")
    assert unit.refresh(0.0) is unit.refresh(1.0)
    tell(krrm, "mdfp1", 1, now_s=2.0)  # a heartbeat
    unit.refresh(2.0)
    assert unit.recut == 1
    tell(krrm, "mdfp1", 1, now_s=3.0, load=0.9)
    assert unit.refresh(3.0).models[0].load == 0.9
    assert unit.recut == 2
