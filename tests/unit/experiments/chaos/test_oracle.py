"""The oracle on made snapshots: it finds the loop, the black hole, the lost object, the altered packet, the growth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from experiments.chaos import growth, oracle
from experiments.chaos.flows import Tables, Walker, labelled, parse_down, parse_flows, parse_groups
from experiments.chaos.oracle import Ledger
from packets.events import Event
from packets.labels import label_address
from topologies.build import Terminal, build_plan
from topologies.plan import NetworkPlan

PLAN = build_plan("made", kas={1: [Terminal("h11", "data")], 2: [Terminal("h21", "data")]}, wan=[(1, 2)])
HOSTS = {h.name: h for h in PLAN.hosts}
OBJECT = 0x1234


def far(plan: NetworkPlan, a: str, b: str) -> int:
    """The port of ``a`` towards ``b``."""
    link = next(x for x in plan.links if {x.a, x.b} == {a, b})
    return link.a_port if link.a == a else link.b_port


def way(plan: NetworkPlan, start: str, end: str) -> list[str]:
    """The switches from one to another; K-AS are trees here."""
    paths = [[start]]
    names = {s.name for s in plan.switches}
    while paths:
        path = paths.pop(0)
        if path[-1] == end:
            return path
        near = {x.b if x.a == path[-1] else x.a for x in plan.links if path[-1] in (x.a, x.b)} & names
        paths += [[*path, other] for other in sorted(near) if other not in path]
    raise AssertionError("no way")


def whole(changes: dict[str, str] | None = None) -> Tables:
    """Rules as ``dump-flows`` prints them: every terminal reached from everywhere, one label led from h11 to h21.

    ``changes``: {switch: rules that come before its own}.
    """
    label = label_address(OBJECT)
    lines: dict[str, list[str]] = {}
    for switch in PLAN.switches:
        lines[switch.name] = [
            " priority=90,arp actions=goto_table:1",
            " priority=80,udp,nw_dst=240.0.0.0/4,tp_dst=55831 actions=goto_table:3",
            " priority=60,ip actions=goto_table:2",
            " table=3, priority=1 actions=meter:5,CONTROLLER:65535",
        ]
        for host in PLAN.hosts:
            path = way(PLAN, switch.name, host.switch)
            out = host.port if len(path) == 1 else far(PLAN, *path[:2])
            ends = f"dec_ttl,set_field:{host.mac}->eth_dst,output:{out}"
            lines[switch.name] += [f" table=2, priority=200,ip,nw_dst={host.address} actions={ends}"]
            if host.name == "h21":
                rewrite = f"set_field:{host.address}->ip_dst," if len(path) == 1 else ""
                match = f"cookie=0x100001234, table=3, priority=50,udp,nw_dst={label},tp_dst=55831"
                lines[switch.name] += [f" {match} actions={rewrite}output:{out}"]
    for name, text in (changes or {}).items():
        lines[name].insert(0, text)
    return Tables({name: parse_flows("\n".join(text)) for name, text in lines.items()})


def test_a_whole_network_is_whole() -> None:
    assert oracle.astray(PLAN, whole()) == {}
    assert oracle.label_ways(PLAN, whole(), {OBJECT: ("h11", "h21")}) == {}


def test_a_loop_of_ordinary_frames_is_found() -> None:
    path = way(PLAN, HOSTS["h11"].switch, HOSTS["h21"].switch)
    back = f" table=2, priority=300,ip,nw_dst={HOSTS['h21'].address} actions=output:{far(PLAN, path[1], path[0])}"
    found = oracle.astray(PLAN, whole({path[1]: back}))
    assert list(found.values()) == ["loop"] and "h11 to h21" in next(iter(found))


def test_a_loop_of_a_label_is_found() -> None:
    path = way(PLAN, HOSTS["h11"].switch, HOSTS["h21"].switch)
    back = (
        f" cookie=0x100001234, table=3, priority=60,udp,nw_dst={label_address(OBJECT)},tp_dst=55831"
        f" actions=output:{far(PLAN, path[1], path[0])}"
    )
    assert set(oracle.astray(PLAN, whole({path[1]: back})).values()) == {"loop"}


def test_black_holes_are_found() -> None:
    path = way(PLAN, HOSTS["h11"].switch, HOSTS["h21"].switch)
    drop = f" table=2, priority=300,ip,nw_dst={HOSTS['h21'].address} actions=drop"
    assert oracle.astray(PLAN, whole({path[-1]: drop})) == {
        next(iter(oracle.astray(PLAN, whole({path[-1]: drop})))): "black hole"
    }
    assert oracle.astray(PLAN, whole({path[-1]: drop}), away=["h21"]) == {}
    nowhere = (
        f" cookie=0x100001234, table=3, priority=60,udp,nw_dst={label_address(OBJECT)},tp_dst=55831 actions=output:77"
    )
    found = oracle.label_ways(PLAN, whole({path[1]: nowhere}), {OBJECT: ("h11", "h21")})
    assert list(found.values()) == ["black hole"] and "where nothing is" in next(iter(found))
    gone = whole()
    del gone.rules[path[1]]
    assert "does not answer" in next(iter(oracle.astray(PLAN, gone)))


def test_a_frame_at_the_wrong_terminal_is_found() -> None:
    h11, h21 = HOSTS["h11"], HOSTS["h21"]
    wrong = f" table=2, priority=300,ip,nw_dst={h21.address} actions=output:{h11.port}"
    assert "misdelivery" in oracle.astray(PLAN, whole({h11.switch: wrong})).values()


def test_what_one_look_alone_shows_is_no_finding() -> None:
    assert oracle.lasting({"a": "loop", "b": "loop"}, {"b": "loop", "c": "loop"}) == {"b": "loop"}


def test_groups_are_followed() -> None:
    tables = whole()
    h11 = HOSTS["h11"]
    bucket = f"group_id=7,type=select,bucket=weight:1,actions=set_field:10.9.9.9->ip_dst,output:{h11.port}"
    tables.groups[h11.switch] = parse_groups(f" {bucket},bucket=weight:2,actions=drop\n")
    label = label_address(0x77)
    tables.rules[h11.switch] = parse_flows(
        f" priority=99,udp,nw_dst={label},tp_dst=55831 actions=group:7"
    )  # fmt: skip
    ends = Walker(PLAN, tables).walk(h11.switch, h11.port, labelled(h11, label))
    assert [(e.how, e.where) for e in ends] == [("host", "h11")]


def test_a_failover_group_leads_out_of_its_first_live_port() -> None:
    buckets = (
        "bucket=watch_port:2,actions=output:2,bucket=watch_port:3,actions=set_field:02:da:fe:00:00:01->eth_dst,output:3"
    )
    ports = (
        " 2: addr:02:00:00:00:00:02\n     state:      LINK_DOWN\n 3: addr:02:00:00:00:00:03\n     state:      LIVE\n"
    )
    assert parse_down(ports) == {2}
    assert parse_groups(f" group_id=9,type=ff,{buckets}\n") == {9: [["output:2"]]}
    assert parse_groups(f" group_id=9,type=ff,{buckets}\n", {2}) == {
        9: [["set_field:02:da:fe:00:00:01->eth_dst", "output:3"]]
    }
    assert parse_groups(f" group_id=9,type=ff,{buckets}\n", {2, 3}) == {9: []}


# --- objects ----------------------------------------------------------------------------------------------------------


def said(ledger: Ledger, kind: str, t_unix_s: float = 100.0, **data: Any) -> None:
    ledger.hear(Event(kind=kind, source="x", t_unix_s=t_unix_s, data={"object_id": OBJECT, **data}))


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    said(made, "job.submitted", spec={"deadline_s": 60.0})
    said(made, "job.assessed", admitted=True)
    return made


def test_a_lost_job_is_found(ledger: Ledger) -> None:
    assert ledger.lost(100 + 60 + 29, 30) == {}
    assert list(ledger.lost(100 + 60 + 31, 30).values()) == ["lost object"]
    said(ledger, "job.finished", state="failed", reason="")
    assert "without a reason" in next(iter(ledger.lost(0, 30)))


def test_a_job_that_came_home_or_failed_with_a_reason_is_not_lost(ledger: Ledger) -> None:
    said(ledger, "job.finished", state="failed", reason="its home was started anew")
    assert ledger.lost(1e6, 0) == {}
    other = Ledger()
    said(other, "job.assessed", admitted=True)
    said(other, "object.returned", node="owner1")
    assert other.lost(1e6, 0) == {}


def test_an_object_at_two_places_is_found(ledger: Ledger) -> None:
    said(ledger, "object.returned", node="owner1")
    assert ledger.in_two_places() == {}
    said(ledger, "object.returned", node="owner2")
    assert list(ledger.in_two_places().values()) == ["misdelivery"]


def test_an_altered_parcel_is_found(ledger: Ledger) -> None:
    ledger.sent[OBJECT] = "aa"
    said(ledger, "parcel.kept", node="c1", sha256="aa")
    assert ledger.bad() == {}
    said(ledger, "parcel.kept", node="c1", sha256="ab")
    assert list(ledger.bad().values()) == ["bad packet"]


def test_parcels_of_which_nothing_is_heard_are_counted(ledger: Ledger) -> None:
    ledger.sent |= {OBJECT: "aa", 7: "bb", 8: "cc"}
    said(ledger, "parcel.kept", node="c1", sha256="aa")
    ledger.hear(Event(kind="error", source="h11", t_unix_s=1.0, data={"object_id": 7}))
    assert oracle.unheard(ledger) == 1


def test_who_died_by_itself_is_found() -> None:
    names = {1: "dcc1", 2: "h11", 3: "h12"}
    assert list(oracle.died(names, {1}, {3})) == ["h11 (process 2) has ended by itself"]


# --- growth -----------------------------------------------------------------------------------------------------------


def life(pid: int, start: int, mb: float, each: float, files: int = 20) -> list[growth.Sample]:
    return [growth.Sample(start + n, "dcc1", pid, mb + each * n, files) for n in range(160)]


def test_growth_is_found_over_several_lives() -> None:
    steady = growth.slopes([*life(1, 0, 50, 0.0), *life(2, 160, 90, 0.0)])
    assert growth.grown(steady) == {} and steady[0].lives == 2
    (leak,) = growth.slopes([*life(1, 0, 50, 0.02), *life(2, 160, 90, 0.02)])
    assert leak.mb == pytest.approx(2.0) and list(growth.grown([leak]).values()) == ["growth"]
    files = [msgspec.structs.replace(s, files=20 + s.jobs // 20) for s in life(1, 0, 50, 0.0)]
    assert growth.grown(growth.slopes(files))


def test_the_first_jobs_of_a_life_do_not_count() -> None:
    warming = [growth.Sample(n, "h11", 1, 30 + min(n, growth.WARM_JOBS), 9) for n in range(160)]
    assert growth.grown(growth.slopes(warming)) == {}


def test_findings_that_differ_in_their_terminals_alone_are_one() -> None:
    found = {"a to b: drop at s1": "black hole", "a to c: drop at s1": "black hole", "a to d: loop": "loop"}
    one = {"a to b and 1 pairs more: drop at s1": "black hole", "a to d: loop": "loop"}
    assert oracle.gathered(found) == one  # type: ignore[arg-type]
