"""``daitn explain`` and ``daitn map`` on the files of a run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from controller.store import Store
from experiments.commands import netmap
from experiments.commands.explain import choose_job, explain, jobs_of, read_events, say
from experiments.errors import ExperimentError
from packets.events import Event, encode_event

JOB = 0x5D2E1F4EF0161869
HANDLE, OTHER = "aa" * 8, "bb" * 8


def events() -> list[tuple[str, dict[str, Any]]]:
    basis = {"h12.samples": {"value": 1500, "age_s": 0.4}, "h12.group_shares": {"value": {"a": 0.9}, "age_s": 3.0}}
    other = {"kas": 2, "handle": OTHER, "score": -0.1, "cost_s": 1.9, "cost_bytes": 977_000, "age_s": 0.7,
             "samples": 900, "trust": 0.61}  # fmt: skip
    spec = {"broad_accuracy": 0.8, "expert_group": "cardiology", "expert_accuracy": 0.95}
    return [
        ("job.submitted", {"object_id": JOB, "owner": "owner1", "spec": spec}),
        ("job.assessed", {"object_id": JOB, "admitted": True, "reasons": [], "predicted": {"broad": 0.97}}),
        ("job.decided", {"object_id": JOB, "visit": 0, "action": "train", "kas": 1, "handle": HANDLE,
                         "reason": "lifts cardiology", "alternatives": [other], "offers": 12, "cost_s": 1.15,
                         "cost_bytes": 1_070_000, "expected": {"cardiology": 0.9}, "plan": [], "ages": {}}),
        ("object.steered", {"object_id": JOB, "visit": 0, "purpose": "train", "node": "c1", "data_node": "h12",
                            "basis": basis}),
        ("link.load", {"link": "x"}),
        ("terminal.revoked", {"name": "h31", "kas": 3, "reason": "stolen"}),
        ("terminal.revoked", {"name": "h32", "kas": 3, "reason": ""}),
        ("terminal.restored", {"name": "h32", "kas": 3, "reason": ""}),
        ("visit.trained", {"object_id": JOB, "visit": 0, "samples": 1500, "epochs": 2.0, "loss": 0.3, "seconds": 1.0}),
        ("job.finished", {"object_id": JOB, "state": "finished", "broad": 0.9, "expert": 0.96, "visits": 1,
                          "reason": "both targets met"}),
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [encode_event(Event(kind=k, source="dcc1", t_unix_s=1.0, data=d)) for k, d in events()]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n" + lines[0][:30])
    store = Store(tmp_path / "dcc1.sqlite")
    store.node("h12", "data", 1, "10.1.1.2", {"samples": 1500, "trust": 0.61})
    detail = {"name": "h12", "kas": 1, "heard_s_ago": 0.5, "reports": 10, "bytes": 1500, "bytes_per_s": 150.0}
    store.freshness(detail | {"attributes": {"samples": {"age_s": 4.0, "cost_bytes": 700}}})
    meeting = {
        "handle": OTHER, "data_node": "h21", "facility": "h21", "move_data": False, "mix": {"a": 1.0}, "quality": 0.9,
        "samples": 900, "trust": 0.61, "epoch_s": 0.5, "reach_s": 0.1, "move_s": 0.0, "age_s": 0.7,
    }  # fmt: skip
    store.cut(JOB, 2, {"meetings": [meeting], "mpvus": [{"node": "mpvu2", "test_samples": 2400}]})
    store.close()
    return tmp_path


def test_each_decision_has_its_attributes_ages_alternatives_and_costs(folder: Path) -> None:
    found = read_events(folder)
    told = explain(found, choose_job(found, None), netmap.places_of(folder, JOB))
    (decision,) = told["decisions"]
    assert decision["place"] == "c1 with data of h12"
    assert {a["attribute"]: a["age_s"] for a in decision["attributes"]} == {"h12.samples": 0.4, "h12.group_shares": 3.0}
    (other,) = decision["alternatives"]
    assert (other["place"], other["cost_s"], other["age_s"]) == ("h21", 1.9, 0.7)
    assert decision["outcome"]["loss"] == 0.3 and told["finished"]["state"] == "finished"
    json.dumps(told)


def test_the_same_handle_in_another_kas_is_another_place(folder: Path) -> None:
    from topologies.fig3 import PLAN

    handle, found = "@mpvu/0", read_events(folder)
    told = {"object_id": JOB, "visit": 1, "action": "confirm", "kas": 4, "handle": handle, "reason": "both",
            "alternatives": [{"kas": 2, "handle": handle}]}  # fmt: skip
    there = {"object_id": JOB, "visit": 1, "purpose": "confirm", "node": "mpvu4"}
    found += [Event(kind=k, source="dcc1", t_unix_s=2.0, data=d)
              for k, d in (("job.decided", told), ("object.steered", there))]  # fmt: skip
    (unknown,) = explain(found, JOB, netmap.places_of(folder, JOB))["decisions"][1]["alternatives"]
    assert unknown["place"] == ""
    up = encode_event(Event(kind="network.up", source="run", t_unix_s=0.0, data={"plan": msgspec.to_builtins(PLAN)}))
    (folder / "events.jsonl").write_bytes(up + b"\n" + (folder / "events.jsonl").read_bytes())
    confirm = explain(found, JOB, netmap.places_of(folder, JOB))["decisions"][1]
    assert confirm["place"] == "mpvu4" and confirm["alternatives"][0]["place"] == "mpvu2"


def test_reading_leaves_no_file_beside_a_database_and_sees_what_a_live_one_holds(folder: Path) -> None:
    before = sorted(p.name for p in folder.iterdir())
    assert netmap.cut_of(folder, JOB)
    assert sorted(p.name for p in folder.iterdir()) == before and "dcc1.sqlite-wal" not in before
    live = Store(folder / "dcc2.sqlite")
    live.node("h99", "data", 2, "10.2.1.2", {"samples": 1})
    assert (folder / "dcc2.sqlite-wal").stat().st_size > 0
    assert "h99" in {r["name"] for r in netmap.rows(folder, "nodes")}
    live.close()


def test_it_reads_as_tables(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=140)
    say(explain(read_events(folder), JOB), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("visit 0: train at c1 with data of h12", "h12.samples", "0.40 s", "1.90 s, 0.98 MB", "finished"):
        assert words in text


@pytest.mark.parametrize(
    ("asked", "words"), [("auto", "trains gossip, as TAG chose"), ("routed", "TAG would choose gossip")]
)
def test_it_tells_which_way_of_training_tag_chose_and_what_the_others_promised(
    folder: Path, asked: str, words: str
) -> None:
    prospect = {"method": "sequential", "accuracy": 0.81, "rounds": 6, "round_s": 2.5, "bytes": 12_000_000.0}
    algorithm = {
        "asked": asked, "chosen": "gossip", "method": "gossip" if asked == "auto" else asked, "reason": "gossip: 0.9",
        "prospects": [prospect],
    }  # fmt: skip
    found = read_events(folder)
    assessed = next(e for e in found if e.kind == "job.assessed")
    assessed.data["algorithm"] = algorithm
    told = explain(found, JOB)
    assert told["algorithm"] == algorithm
    out = io.StringIO()
    say(told, Console(file=out, width=160))
    assert words in out.getvalue()
    assert all(text in out.getvalue() for text in ("sequential", "0.810", "2.50 s", "12.00 MB"))


def test_it_tells_whose_engine_decided_where_it_was_borrowed(folder: Path) -> None:
    found, out = read_events(folder), io.StringIO()
    by = {"kas": 1, "ms": 23.4, "own": False, "before": ["K-AS 4: no answer within 2 s"]}
    for event in found:
        if event.kind in ("job.assessed", "job.decided"):
            event.data["by"] = by
    told = explain(found, JOB)
    assert told["admission"]["by"] == told["decisions"][0]["by"] == by
    say(told, Console(file=out, width=160))
    words = "by K-AS 1's {}, borrowed, after 23 ms; asked before, K-AS 4: no answer within 2 s"
    assert f"admitted {words.format('T-FAM')}\n" in out.getvalue()
    assert f"because lifts cardiology (decided {words.format('MTRCE')})\n" in out.getvalue()


def test_it_tells_who_lent_hpo_and_tag_for_this_job_and_no_other(folder: Path) -> None:
    def lent(engine: str, source: str, kas: int) -> Event:
        data = {"engine": engine, "kas": 1, "lender": kas, "took_ms": 51.2, "own": False, "before": []}
        return Event(kind="engine.borrowed", source=source, t_unix_s=1.0, data=data)

    submitted, assessed, decided, *rest = read_events(folder)
    assessed.data["algorithm"] = {
        "asked": "auto",
        "chosen": "routed",
        "method": "routed",
        "reason": "",
        "prospects": [],
    }
    again = Event(kind="job.decided", source="dcc1", t_unix_s=1.0, data=decided.data | {"visit": 1})
    found = [submitted, lent("tag", "dcc1", 4), lent("tag", "dcc2", 3), assessed, lent("hpo", "dcc1", 2),
             lent("hpo", "dcc1", 0), lent("hpo", "dcc2", 3), decided, again, *rest]  # fmt: skip
    told, out = explain(found, JOB), io.StringIO()
    assert told["tag"]["kas"] == 4 and [d["hpo"] and d["hpo"]["kas"] for d in told["decisions"]] == [2, None]
    say(told, Console(file=out, width=160))
    assert "  which way to train was said by K-AS 4's TAG, borrowed, after 51 ms\n" in out.getvalue()
    assert out.getvalue().count("  hyper-parameters by K-AS 2's HPO, borrowed, after 51 ms\n") == 1


def test_a_forecast_has_units_and_ranges_and_no_expert_where_none_is_wanted(folder: Path) -> None:
    found = read_events(folder)
    submitted, assessed, finished = found[0].data, found[1].data, found[-1].data
    assessed["predicted"] = {
        "broad": 0.96, "broad_low": 0.78, "broad_high": 1.0, "expert": 0.9, "visits": 3, "seconds": 5.6,
        "seconds_low": 2.8, "seconds_high": 8.4, "bytes": 5963520, "bytes_low": 2981760, "bytes_high": 8945280,
    }  # fmt: skip
    figures = "3 visits, 5.6 s (2.8 to 8.4), 6.0 MB (3.0 to 8.9)"
    for group, expert in (("heart {1}", "heart {1} 0.90, "), (None, "")):
        submitted["spec"] |= {"expert_group": group}
        out = io.StringIO()
        say(explain(found, JOB), Console(file=out, width=160))
        assert f"  T-FAM predicted broad 0.96 (0.78 to 1.00), {expert}{figures}\n" in out.getvalue()
        end = f"broad 0.900, {group} 0.960" if group else "broad 0.900"
        assert f"finished: {end} after {finished['visits']} visits; " in out.getvalue()


@pytest.mark.parametrize(
    ("terminal", "node", "words"),
    [
        ("holder", "mpvu2", "by mpvu2, which held it, of K-AS 1, after 23 ms"),
        ("holder", "", "by the terminal that held it, of K-AS 1, after 23 ms"),
        ("other", "", "by another terminal, of K-AS 1, after 23 ms; asked before, h11 did not answer"),
    ],
)
def test_it_tells_which_terminal_decided(folder: Path, terminal: str, node: str, words: str) -> None:
    found, out = read_events(folder), io.StringIO()
    before = ["h11 did not answer"] if terminal == "other" else []
    for event in list(found):
        if event.kind == "job.decided":
            event.data["by"] = {"kas": 1, "ms": 23.4, "own": False, "before": before, "terminal": terminal}
            about = {k: event.data[k] for k in ("object_id", "visit", "handle")} | {"node": node}
            found += [Event(kind="holder.decided", source="dcc1", t_unix_s=1.0, data=about)] if node else []
    say(explain(found, JOB), Console(file=out, width=160))
    assert f"because lifts cardiology (decided {words})\n" in out.getvalue()


def test_it_tells_what_was_decided_in_an_abstract_terminal(folder: Path) -> None:
    out = io.StringIO()
    said = {"object_id": JOB, "handle": HANDLE, "at": "at11", "data_node": "h12", "facility": "c1", "offers": 3}
    before = [said | {"reason": "lifts it most"}, said | {"facility": "h13", "reason": "lost"}]
    first, second, later = (
        encode_event(Event(kind="at.decided", source="dcc1", t_unix_s=1.0, data=d))
        for d in [*before, said | {"reason": "another visit"}]
    )
    log = folder / "events.jsonl"
    submitted, *lines = log.read_bytes().splitlines()[:-1]
    log.write_bytes(b"\n".join([submitted, first, second, *lines, later]))
    say(explain(read_events(folder), JOB), Console(file=out, width=160))
    assert "  in at11, of 3 on offer there: lifts it most\n" in out.getvalue()
    assert "lost" not in out.getvalue() and "another visit" not in out.getvalue()


def test_jobs_are_found_by_the_beginning_of_their_number(folder: Path) -> None:
    found = read_events(folder)
    assert jobs_of(found) == [JOB]
    assert choose_job(found, "0x5d2e") == choose_job(found, "5d2") == choose_job(found, str(JOB)) == JOB
    with pytest.raises(ExperimentError, match="no job is called 77"):
        choose_job(found, "77")


def test_a_folder_of_no_run_is_named(tmp_path: Path) -> None:
    for ask in (lambda: read_events(tmp_path), lambda: netmap.whole_map(tmp_path), lambda: netmap.plan_of(tmp_path)):
        with pytest.raises(ExperimentError, match=str(tmp_path)):
            ask()


def test_the_map_has_values_ages_and_costs(folder: Path) -> None:
    found = netmap.whole_map(folder)
    (terminal,) = found["terminals"]
    assert terminal["attributes"]["samples"] == {"value": 1500, "age_s": 4.0, "cost_bytes": 700}
    assert found["telemetry_bytes_per_s"] == 150
    console = Console(file=io.StringIO(), width=140)
    netmap.say_map(found, console)
    netmap.say_cut(netmap.cut_of(folder, JOB), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "h12" in text and "mpvu2 (K-AS 2): 2400 test samples" in text


def test_a_job_without_a_cut_is_named(folder: Path) -> None:
    with pytest.raises(ExperimentError, match="no topology was cut for job 0x1"):
        netmap.cut_of(folder, 1)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_it_can_be_drawn(folder: Path, ending: str) -> None:
    from topologies.fig3 import PLAN

    graph = netmap.graph_of(PLAN, netmap.whole_map(folder)["terminals"], netmap.cut_of(folder, JOB))
    assert graph.nodes["h21"]["member"] and not graph.nodes["h31"]["member"]
    netmap.draw(graph, folder / f"map.{ending}", "job")
    assert (folder / f"map.{ending}").stat().st_size > 5000
    with pytest.raises(ExperimentError, match="ends in"):
        netmap.draw(graph, folder / "map.gif", "job")


def test_who_was_revoked_meanwhile_is_said(folder: Path) -> None:
    told = explain(read_events(folder), JOB)
    assert told["revoked"] == [{"name": "h31", "kas": 3, "reason": "stolen"}]
    out = io.StringIO()
    say(told, Console(file=out, width=200))
    assert "h31 of K-AS 3 was revoked: stolen" in out.getvalue() and "h32" not in out.getvalue()
