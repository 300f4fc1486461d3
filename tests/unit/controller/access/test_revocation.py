"""Revoked terminals: off the map, refused everywhere, told of across K-AS, remembered; nobody revokes another's."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from controller.__main__ import read_keeper
from controller.access.revocation import Revocation, read_orders
from controller.border.revoking import Revocations
from controller.errors import SteeringError
from controller.runtime.loop import Worker
from controller.store import Store
from controller.training.jobs import Job, request_of
from experiments.testbed.identities import Identities
from packets.calls import Revoked
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.messages import JobSpec
from packets.wire import decode
from tests.fake_fabric import World, run, udp
from tests.unit.controller.access.test_authenticity import PLAN, Secured, register
from tests.unit.controller.steering.test_resteer import LABEL, steered


async def standing(tmp_path: Path) -> Secured:
    world = Secured(tmp_path)
    await world.start()
    for name, host in world.hosts.items():
        if host.kas in (1, 3):
            assert await world.answers(name, world.request(name, register(name)))
    return world


def word_of(world: Secured, kas: int, names: list[str], epoch: int = 1 << 42, signer: int = 0) -> Revocations:
    word = Revocations(kas=1, from_kas=kas, epoch=epoch, names=names)
    signature = world.identities[f"dcc{signer or kas}"].signing.sign(word.text())
    return msgspec.structs.replace(word, signature=signature)


def test_a_revoked_terminal_is_off_the_map_and_refused_everywhere_and_let_in_again(tmp_path: Path) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        dcc, h11 = world.by_kas[1], world.hosts["h11"]
        rules = sorted(map(str, world.fabric.switches[h11.switch].flows))
        orders = dcc.revocation.orders = tmp_path / "revoked.json"
        orders.write_text(json.dumps({"h11": "stolen", "h31": "is another K-AS's to revoke"}))
        await dcc.revocation.look()
        await world.settle()
        assert [(d["name"], d["reason"]) for d in world.of("terminal.revoked")] == [("h11", "stolen")]
        assert "h11" not in dcc.services.krrm and [d["name"] for d in world.of("agent.gone")] == ["h11"]
        assert not dcc.services.processes.reachable("h11"), "no place for anything any more"
        journey = world.fabric.inject(h11, udp(h11, DCC_ADDRESS, world.request("h11", register("h11")), port=AI_PORT))
        assert (journey.ends, journey.punted) == ([], 0), "its port is closed for AI traffic"
        for kas in (1, 2, 3, 4):
            keeper = world.by_kas[kas].authenticity.keeper
            assert keeper is not None and keeper.revoked == {"h11"}
        raw = world.launch_of("h11", owner="h11")
        assert world.keepers["c1"].check_launch(decode(raw)[0], raw, h11.address) is None
        assert world.by_kas[3].authenticity.keeper.check_launch(decode(raw)[0], raw, h11.address) == "revoked-key"  # type: ignore[union-attr]
        told = {name for name, message in world.asked if message == Revoked(names=["h11"])}
        assert {"c1", "h13", "owner1", "mdfp3", "h31"} <= told and "h11" not in told
        before = len(world.events)
        await dcc.revocation.look()
        await world.settle()
        assert len(world.events) == before, "said once"
        orders.write_text("{}")
        await dcc.revocation.look()
        await world.settle()
        assert [d["name"] for d in world.of("terminal.restored")] == ["h11"]
        assert sorted(map(str, world.fabric.switches[h11.switch].flows)) == rules
        assert len(await world.answers("h11", world.request("h11", register("h11"), transfer_id=9))) == 1

    run(work)


def test_a_control_centre_that_starts_again_remembers_whom_it_refused(tmp_path: Path) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        dcc = world.by_kas[1]
        await dcc.revocation.order({"h11": "stolen"})
        dcc.revocation.heard(word_of(world, 3, ["c3"]))
        again = Revocation(dcc.services, Worker(lambda kind, /, **data: None), dcc.authenticity)
        assert again.names == {"h11", "c3"} and dcc.services.communication.closed == {"h11", "c3"}
        await world.start()  # a switch that connects anew gets the closed port, too
        h11 = world.hosts["h11"]
        assert world.fabric.inject(h11, udp(h11, DCC_ADDRESS, port=AI_PORT)).punted == 0

    run(work)


def test_the_store_keeps_the_last_word_of_each_kas() -> None:
    store = Store()
    for word in ("one", "two"):
        store.revoked(1, word)
    store.revoked(2, "other")
    assert [(r["kas"], r["word"]) for r in store.rows("revoked")] == [(1, "two"), (2, "other")]


@pytest.mark.parametrize("case", ["another's terminal", "another's signature", "altered", "no such K-AS"])
def test_nobody_revokes_anothers_terminals(tmp_path: Path, case: str) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        words = {
            "another's terminal": word_of(world, 3, ["h11"]),
            "another's signature": word_of(world, 3, ["c3"], signer=2),
            "altered": msgspec.structs.replace(word_of(world, 3, ["c3"]), names=["mdfp3"]),
            "no such K-AS": word_of(world, 77, ["c3"], signer=3),
        }
        revocation = world.by_kas[1].revocation
        with pytest.raises(SteeringError, match="revoke"):
            revocation.heard(words[case]) if case != "no such K-AS" else _unknown(revocation, words[case])
        assert not revocation.names

    run(work)


def _unknown(revocation: Revocation, word: Revocations) -> None:
    try:
        revocation.heard(word)
    except SteeringError as error:
        assert "may not revoke" in str(error) or "no control centre" in str(error)
        raise SteeringError("revoke") from error


def test_an_older_word_changes_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        revocation = world.by_kas[1].revocation
        revocation.heard(word_of(world, 3, ["c3"], epoch=1 << 42))
        revocation.heard(word_of(world, 3, [], epoch=(1 << 42) - 1))
        assert revocation.names == {"c3"}
        revocation.heard(word_of(world, 3, [], epoch=(1 << 42) + 1))
        assert revocation.names == set()

    run(work)


def test_a_kas_that_did_not_hear_is_told_again(tmp_path: Path) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        dcc = world.by_kas[1]
        world.mute.add(3)
        await dcc.revocation.order({"h11": ""})
        await dcc.revocation.look()
        assert world.by_kas[2].revocation.names == {"h11"} and world.by_kas[3].revocation.names == set()
        world.mute.clear()
        await dcc.revocation.look()
        await world.settle()
        assert world.by_kas[3].revocation.names == {"h11"}

    run(work)


def test_in_an_open_network_nobody_can_be_revoked(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        with pytest.raises(SteeringError, match="open network"):
            await world.by_kas[1].revocation.order({"h11": ""})

    run(work)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', ""])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "revoked.json"
    assert read_orders(file) == {}
    file.write_text(text)
    with pytest.raises(SteeringError, match="terminal: why") as refused:
        read_orders(file)
    assert len(str(refused.value).splitlines()) == 1


def test_what_was_at_a_revoked_terminal_goes_elsewhere_as_if_it_had_died(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31|h21")
        dcc = world.by_kas[3]
        dcc.authenticity.keeper = read_keeper(*Identities(PLAN, tmp_path).controller_options(3).values())
        await dcc.revocation.order({"h31": "stolen"})
        await world.settle()
        assert [(one.place, one.alive, one.visit) for one in home.lost] == [("3:@node/h31", False, 0)]
        assert world.send("owner1", LABEL, b"shard").ends == ["h21"], "nothing is lost"
        assert [d["reason"] for d in world.of("object.resteered")] == ["h31 is revoked"]

    run(work)


def test_the_jobs_of_a_revoked_owner_end(tmp_path: Path) -> None:
    async def work() -> None:
        world = await standing(tmp_path)
        dcc = world.by_kas[1]
        spec = JobSpec(task="vignettes")
        for number, state in ((1, "running"), (2, "finished")):
            dcc.training.book.put(Job(number, spec, request_of(spec, []), "owner1", 1, [], state=state))
        await dcc.revocation.order({"owner1": "stolen"})
        await world.settle()
        assert [(d["object_id"], d["state"]) for d in world.of("job.finished")] == [(1, "stopped")]
        assert "owner1 is revoked" in dcc.training.book.jobs[1].reason

    run(work)
