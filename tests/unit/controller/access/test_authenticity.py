"""Authenticity at a control centre: what comes in is a terminal's own new word of what it holds; answers are sealed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from controller.__main__ import read_keeper
from controller.access.authenticity import EVENTS_PER_S, Authenticity
from controller.errors import PlanError
from controller.steering.announced import Announced
from controller.store import Store
from experiments.testbed.identities import Identities
from packets.labels import AI_PORT, DCC_ADDRESS, class_label, label_address, object_label
from packets.messages import Ack, AnnounceObject, Ask, Message, Register, decode_message, encode_message
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.security.seal import seal_with_mac
from packets.transfers import OutgoingObject
from packets.wire import Digest, Flag, Header, PacketType, decode, encode
from tests.fake_fabric import World, run, small_plan, udp

PLAN = small_plan()
OBJECT = 5 << 28 | 1 << 20 | 7


class Secured(World):
    """A network with keys: ``keepers`` of all terminals, and one in every control centre."""

    def __init__(self, runtime: Path) -> None:
        super().__init__(PLAN)
        self.identities = Identities(PLAN, runtime)
        directory = Directory.load(self.identities.directory)
        self.keepers = {
            h.name: Keeper(
                Identity.from_json(self.identities.keys(h.name)), directory, aliases={DCC_ADDRESS: f"dcc{h.kas}"}
            )
            for h in PLAN.hosts
        }
        for kas, dcc in self.by_kas.items():
            dcc.authenticity.keeper = read_keeper(*self.identities.controller_options(kas).values())
            dcc.services.communication.own_source = True

    def request(self, name: str, message: Message, transfer_id: int = 1, to: str = DCC_ADDRESS) -> bytes:
        kind = PacketType.QUERY if to != DCC_ADDRESS else PacketType.ANNOUNCE
        header = Header(type=kind, transfer_id=transfer_id, owner=self.hosts[name].address)
        return self.keepers[name].sign_request(header, encode_message(message), to)

    async def answers(self, name: str, packet: bytes) -> list[bytes]:
        """Send a packet to the DCC from a terminal's port; return what came back."""
        before = len(self.fabric.inbox[name])
        self.send(name, DCC_ADDRESS, packet)
        await self.settle()
        return [p.payload for p in self.fabric.inbox[name][before:]]

    def launch_of(self, name: str, owner: str, visit: int = 0, **more: object) -> bytes:
        obj = OutgoingObject(
            object_id=OBJECT, type=PacketType.MODEL_SHARD, payload=b"model", owner=self.hosts[owner].address,
            visit=visit, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        header = Header(
            type=obj.type, flags=Flag.LAUNCH, object_id=OBJECT, transfer_id=7 + visit, owner=obj.owner, visit=visit,
            shard_count=1, total_length=5, digest=Digest.of(b"model"),
        )  # fmt: skip
        return self.keepers[name].launch(obj, header)

    async def reached(self, name: str, packet: bytes) -> list[str]:
        """Send a packet to the object's label; return the terminals that it reached."""
        before = {n: len(inbox) for n, inbox in self.fabric.inbox.items()}
        self.send(name, label_address(object_label(OBJECT)), packet)
        await self.settle()
        return [n for n, inbox in self.fabric.inbox.items() if len(inbox) > before[n]]

    def reasons(self) -> list[str]:
        return [d["reason"] for d in self.of("packet.refused")]


def register(name: str) -> Register:
    host = next(h for h in PLAN.hosts if h.name == name)
    return Register(name=name, role=host.role, address=host.address)


def test_a_terminal_and_its_control_centre_believe_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        (answer,) = await world.answers("h11", world.request("h11", register("h11")))
        header, payload = decode(answer)
        assert world.keepers["h11"].check_request(header, answer, (DCC_ADDRESS, 1)) is None
        assert isinstance(decode_message(payload), Ack) and not world.reasons()
        assert world.keepers["h21"].check_request(header, answer, (DCC_ADDRESS, 1)) == "holder"

    run(work)


def test_who_speaks_for_another_or_again_is_not_answered(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        good = world.request("h11", register("h11"))
        plain = encode(Header(type=PacketType.ANNOUNCE, transfer_id=1), encode_message(register("h11")))
        assert await world.answers("h11", plain) == []
        assert await world.answers("h11", world.request("h13", register("h11"))) == []
        assert await world.answers("h11", world.request("h21", register("h11"))) == []
        assert len(await world.answers("h11", good)) == 1
        assert await world.answers("h11", good) == []
        assert world.reasons() == ["unsigned", "holder", "holder", "replayed"]
        assert world.by_kas[1].authenticity.refused == {"unsigned": 1, "holder": 2, "replayed": 1}

    run(work)


def test_a_request_for_another_control_centre_is_not_taken(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        own = world.identities["h11"]
        other = Keeper(own, Directory.load(world.identities.directory), aliases={DCC_ADDRESS: "dcc2"})
        header = Header(type=PacketType.ANNOUNCE, transfer_id=1, owner=own.certificate.address)
        assert await world.answers("h11", other.sign_request(header, b"", DCC_ADDRESS)) == []
        assert world.reasons() == ["mac"]

    run(work)


def test_a_signed_launch_is_steered_and_every_other_stops_at_the_first_switch(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        decisions = Decisions(world, "h31")
        packet = world.launch_of("owner1", "owner1")
        shard = Header(type=PacketType.MODEL_SHARD, object_id=OBJECT, transfer_id=7, shard_count=1, total_length=5)
        early = seal_with_mac(shard, b"model", bytes(32), 1, 8)
        assert await world.reached("owner1", early) == [], "a shard of what was never launched"
        unsigned = msgspec.structs.replace(decode(packet)[0], authentication=None)
        assert await world.reached("owner1", encode(unsigned)) == []
        mandate = decode(packet)[0].mandate
        assert await world.reached("h11", world.launch_of("h11", "owner1", mandate=mandate)) == []
        assert world.reasons() == ["unsigned", "unsigned", "holder"] and not decisions.asked
        assert await world.reached("owner1", packet) == ["h31"]
        assert await world.reached("owner1", early) == ["h31"], "it goes where its object goes"

    run(work)


def test_an_object_is_its_announcers_whoever_signs_for_it(tmp_path: Path) -> None:
    """A terminal of good standing makes a mandate of its own for what another announced; the home knows better."""

    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=5)
        objects = world.by_kas[1].objects
        objects.announced[OBJECT] = Announced(OBJECT, world.hosts["owner1"], message)
        assert await world.reached("h11", world.launch_of("h11", "h11")) == []
        assert world.reasons() == ["owner"]
        assert await world.reached("owner1", world.launch_of("owner1", "owner1")) == []
        assert world.reasons()[0] == "owner" and "MDFP" in world.reasons()[1]

    run(work)


class Decisions:
    """Every object goes to one place, whoever asks."""

    def __init__(self, world: World, name: str) -> None:
        from controller.border.messages import AskNextStop, Stop

        self.asked: list[AskNextStop] = []
        host = world.hosts[name]

        async def next_stop(ask: AskNextStop) -> Stop:
            self.asked.append(ask)
            path = world.by_kas[1].domain.kas_path(ask.holder_kas, host.kas)
            return Stop(action="train", kas=host.kas, handle=f"@node/{name}", path=path)

        for dcc in world.dccs:
            dcc.training.stops.next_stop = next_stop  # type: ignore[method-assign]


def test_a_query_is_signed_by_its_asker(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        label = label_address(class_label("vignettes"))
        question = Ask(task="vignettes", sample=[1.0])
        world.send("asker4", label, encode(Header(type=PacketType.QUERY), encode_message(question)))
        world.send("asker4", label, world.request("asker4", question, to=label))
        await world.settle()
        reasons = world.reasons()
        assert reasons[0] == "unsigned" and "hosts" in reasons[1], "the second got as far as Q-FAM"

    run(work)


def test_port_address_and_certificate_must_agree(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        authenticity = world.by_kas[1].authenticity
        h11 = world.hosts["h11"]
        raw = world.request("h11", register("h11"))
        header, _ = decode(raw)
        for stranger in (
            msgspec.structs.replace(h11, name="h13"),
            msgspec.structs.replace(h11, role="mpvu"),
            msgspec.structs.replace(h11, address="10.9.9.9"),
        ):
            assert not authenticity.passes(stranger, header, raw, 1)
        assert authenticity.refused == {"holder": 3} and authenticity.passes(h11, header, raw, 1)

    run(work)


@pytest.mark.parametrize("target", ["10.1.1.2", "10.3.1.1", "240.0.0.1", "240.1.0.7"])
def test_nobody_sends_from_anothers_address(tmp_path: Path, target: str) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        h11 = world.hosts["h11"]
        stranger = msgspec.structs.replace(h11, address=world.hosts["h13"].address)
        before = sum(len(inbox) for inbox in world.fabric.inbox.values())
        world.fabric.inject(h11, udp(stranger, target, b"?", port=9))
        world.fabric.inject(h11, udp(stranger, target, world.request("h13", register("h13")), port=AI_PORT))
        await world.settle()
        assert sum(len(inbox) for inbox in world.fabric.inbox.values()) == before
        assert [(d["reason"], d["node"]) for d in world.of("packet.refused")] == [("source", "h11")] * 2

    run(work)


def test_from_its_own_address_a_terminal_sends_where_it_likes(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        for source, target in (("h11", "h13"), ("h11", "h31"), ("c4", "owner1")):
            world.send(source, world.hosts[target].address, b"!", port=9)
            assert world.fabric.inbox[target][-1].payload == b"!"
        assert not world.reasons()

    run(work)


def test_a_flood_of_refusals_is_counted_whole_and_told_in_part(tmp_path: Path) -> None:
    async def work() -> None:
        world = Secured(tmp_path)
        await world.start()
        authenticity, raw = world.by_kas[1].authenticity, encode(Header(type=PacketType.ANNOUNCE))
        for _ in range(500):
            assert not authenticity.passes(world.hosts["h11"], decode(raw)[0], raw, 1)
        assert len(world.of("packet.refused")) == EVENTS_PER_S
        authenticity.tell()
        authenticity.tell()
        last = world.of("packet.refused")[-1]
        assert (last["more"], last["count"]) == (500 - EVENTS_PER_S, 500)
        assert len(world.of("packet.refused")) == EVENTS_PER_S + 1

    run(work)


def test_an_open_network_lets_everything_pass() -> None:
    authenticity = Authenticity(None, lambda: 0.0, lambda kind, /, **data: None, Store())
    raw = encode(Header(type=PacketType.ANNOUNCE))
    assert (
        authenticity.passes(PLAN.hosts[0], decode(raw)[0], raw, 1)
        and authenticity.seal(PLAN.hosts[0], *decode(raw)) == raw
    )


@pytest.mark.parametrize("which", ["identity", "directory"])
def test_a_control_centre_does_not_start_with_half_its_keys(tmp_path: Path, which: str) -> None:
    options = Identities(PLAN, tmp_path).controller_options(1)
    assert read_keeper(None, None) is None
    with pytest.raises(PlanError, match="--directory"):
        read_keeper(options["--identity"], None)
    options[f"--{which}"].write_text("{}")
    with pytest.raises(PlanError, match="missing required field"):
        read_keeper(options["--identity"], options["--directory"])
