"""TAG called at a submission: what the DCC knows of the links, and who decides."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from controller.border.messages import Facility
from controller.domain import Domain
from controller.intelligence import Intelligence
from controller.training.jobs import Job, request_of
from controller.training.method import choose_method, cut_of, links, local_of
from controller.values.decisions import Option, Request
from packets.messages import Fixed, JobSpec
from topologies.build import Rates, Terminal, Wan, build_plan
from topologies.plan import Role


def domain(wan_mbps: float = 50.0) -> Domain:
    """K-AS 1-2-3 in a line, two data nodes and a facility in each; access links of 100 Mbit/s."""
    roles: list[tuple[str, Role]] = [("h1", "data"), ("h2", "data"), ("c", "compute")]
    terminals = {k: [Terminal(f"k{k}{name}", role) for name, role in roles] for k in (1, 2, 3)}
    wan = [Wan(a, a + 1, wan_mbps, 10.0) for a in (1, 2)]
    plan = build_plan("line", kas=terminals, wan=wan, rates=Rates(access_mbps=100.0, lan_mbps=200.0))
    return Domain(plan.domain())


class FakeServices:
    def __init__(self, ready: bool = True) -> None:
        self.domain, self.all_kas, self.ready = domain(), [1, 2, 3], ready
        self.intelligence = Intelligence(self.domain.plan, salt=bytes(16))

    async def facilities(self, make: Any) -> list[Facility]:
        assert make(2).role == "compute"
        return [Facility(kas=k, handle="@compute/0", attributes={"ready": self.ready}) for k in self.all_kas]


def job(method: str, **more: Any) -> Job:
    about: dict[str, Any] = {"model_bytes": 1_000_000, "lower_bytes": 900_000, "activation_bytes": 384}
    spec = JobSpec(task="t", method=method, max_visits=6, **about | more)
    return Job(7, spec, request_of(spec, ["a", "b"]), "owner1", 1, [])


def offer(kas: int, handle: str, **more: Any) -> Option:
    about: dict[str, Any] = {"mix": {"a": 0.5, "b": 0.5}, "samples": 600, "epoch_s": 0.3, "reach_s": 0.1}
    return Option(kas=kas, handle=handle, **about | more)


OFFERS = [offer(k, f"{k}{n}") for k in (1, 2, 3) for n in (1, 2)]


def ask(services: FakeServices, mine: Job, offers: list[Option] = OFFERS) -> dict[str, Any]:
    return asyncio.run(choose_method(services, mine, offers))  # type: ignore[arg-type]


def test_auto_gets_tags_choice_in_the_networks_words() -> None:
    mine = job("auto")
    told = ask(FakeServices(), mine)
    assert told["asked"] == "auto" and told["method"] == told["chosen"] == mine.spec.method == mine.request.method
    assert told["chosen"] in ("routed", "federated", "gossip", "split")
    assert {p["method"] for p in told["prospects"]} == {"sequential", "federated", "gossip", "split"}


def test_an_owner_who_names_a_method_gets_it_and_hears_what_tag_would_choose() -> None:
    mine = job("random")
    told = ask(FakeServices(), mine)
    assert mine.spec.method == mine.request.method == told["method"] == "random"
    assert told["chosen"] == ask(FakeServices(), job("auto"))["chosen"] and told["reason"]


def test_what_cannot_be_cut_is_not_split() -> None:
    assert "split" not in {p["method"] for p in ask(FakeServices(), job("auto", lower_bytes=0))["prospects"]}
    assert cut_of(job("auto")).allowed and not cut_of(job("auto", lower_bytes=0)).allowed


@pytest.mark.parametrize(
    ("services", "offers"), [(FakeServices(ready=False), OFFERS), (FakeServices(), OFFERS[:1]), (FakeServices(), [])]
)
def test_where_nobody_leads_or_nothing_is_parallel_it_is_a_route(services: FakeServices, offers: list[Option]) -> None:
    mine = job("auto")
    assert ask(services, mine, offers)["chosen"] == mine.spec.method == "routed"


def test_data_offered_twice_counts_once() -> None:
    moved = [msgspec.structs.replace(o, handle=f"m{o.handle}", move_bytes=10**6) for o in OFFERS]
    once, twice = ask(FakeServices(), job("auto")), ask(FakeServices(), job("auto"), OFFERS + moved)
    assert once["prospects"] == twice["prospects"]


def test_a_star_is_as_fast_as_its_busiest_link() -> None:
    ways = links(domain(50.0), 2, {1: 2, 2: 2, 3: 2})
    assert (ways.rate_mbps, ways.star_mbps) == (50.0, 100.0)  # six over the facility's 100, two over each WAN link's 50
    assert links(domain(20.0), 2, {1: 2, 2: 2, 3: 2}).star_mbps == pytest.approx(60.0)  # two over 20
    assert links(domain(20.0), 1, {1: 2, 2: 2, 3: 2}).star_mbps == pytest.approx(30.0)  # four over 20
    assert ways.round_trip_s == pytest.approx(0.02 * 4 / 6)


def test_pairs_meet_on_the_wan_alone() -> None:
    assert links(domain(), 1, {1: 4}).mesh_mbps == 400.0
    assert links(domain(), 1, {1: 2, 2: 2}).mesh_mbps == pytest.approx(4 / (2 * 2 * 2 / 3 / 50))


def test_what_the_owner_fixes_of_a_round_is_what_tag_reckons_with() -> None:
    request = Request(task="t", groups=["a"], broad_accuracy=0.8)
    told = local_of(request, OFFERS, Fixed(epochs=0.5, batch_size=7))
    assert (told.epochs, told.batch_size) == (0.5, 7)
