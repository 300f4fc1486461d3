"""A control centre is killed at any moment, and its next life goes on: nothing of a live object is lost or deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.border.messages import Ask, Reply
from controller.dcc import Dcc
from controller.errors import BorderSilent
from controller.plugins.engines import Engines
from controller.runtime.loop import Worker
from controller.services import Means
from controller.southbound.openflow import FlowMod, Found, Mod
from controller.southbound.pipeline import label_cookie
from controller.store import Store
from packets.labels import object_label
from packets.messages import AnyMessage, Message, Refused
from packets.wire import PacketType
from tests.fake_fabric import World, run
from tests.unit.controller.training import test_jobs as jobs

RUN = "r1"


class OneLife:
    """What one life of a control centre is given: the fabric, a voice and others' ears, until it is killed.

    ``left``: how many things it still says before that.
    """

    def __init__(self, world: Mortals, kas: int, left: int) -> None:
        self.world, self.kas, self.left, self.alive = world, kas, left, True
        self.store = Store(world.folder / f"dcc{kas}.sqlite", RUN)

    def _says(self) -> bool:
        """Count one thing that is said; False when it is not, for nobody is there any more to say it."""
        if self.alive:
            self.store.commit()
            self.left -= 1
            if not self.left:
                self.end()
        return self.alive

    def end(self) -> None:
        """Be killed: what was not committed is gone, what the process still does reaches nobody."""
        self.alive = False
        database = self.store.database
        if database._pending:
            database._db.execute("ROLLBACK")
        database._db.close()
        database._over.set()
        database.write = database.commit = lambda *_: None  # type: ignore[assignment, method-assign]
        self.world.died = True
        self.world.by_kas[self.kas].fabric.worker.stop()

    # --- southbound

    def send(self, dpid: int, mods: list[Mod]) -> None:
        for mod in mods:
            if self._says():
                self.world.fabric.send(dpid, [mod])

    async def barrier(self, dpid: int, timeout_s: float = 5.0) -> None:
        await self.world.fabric.barrier(dpid, timeout_s)

    async def found(self, dpid: int, *, meters: bool, timeout_s: float = 5.0) -> Found:
        return await self.world.fabric.found(dpid, meters=meters)

    def ask_port_counts(self, dpid: int) -> None:
        pass

    # --- the rest

    def emit(self, kind: str, /, **data: Any) -> None:
        if self.alive:
            self.world.events.append((f"dcc{self.kas}", kind, data))

    async def ask(self, kas: int, body: Ask) -> Reply:
        if not self._says():
            raise BorderSilent("nobody asks")
        return await self.world._ask(kas, body)


class Mortals(World):
    """A world whose control centre of K-AS ``mortal`` is killed after it has said ``says`` things."""

    def __init__(self, folder: Path, mortal: int, says: int, **others: Any) -> None:
        self.folder, self.mortal, self.limit, self.died, self.deaths = folder, mortal, says, False, 0
        self.lives: dict[int, OneLife] = {}
        self._rising = asyncio.Lock()
        super().__init__(jobs.PLAN, **others)

    def _dcc(self, kas: list[int], engines: Engines | None) -> Dcc:
        left = self.limit if kas[0] == self.mortal and not self.deaths else -1
        life = self.lives[kas[0]] = OneLife(self, kas[0], left)
        means = Means(
            south=life, worker=Worker(life.emit), store=life.store, clock=lambda: self.now_s,
            emit=life.store.audited(life.emit), ask_border=life.ask, seed=7,
            groups={"vignettes": ["cardiology", "neurology"]}, engines=engines,
        )  # fmt: skip
        dcc = Dcc(self.plan.domain(*kas), means)
        dcc.restore()
        for switch in dcc.domain.plan.switches:
            self.fabric.cores[switch.dpid] = dcc.fabric
        self.by_kas |= dict.fromkeys(kas, dcc)
        return dcc

    async def _ask(self, kas: int, body: Ask) -> Reply:
        """Ask, and ask again where the answer is cut off: who asks is patient for as long as a new life takes."""
        while True:
            await self.rise(settle=False)
            life = self.lives[kas]
            reply = await super()._ask(kas, body)
            if life._says():
                return reply

    async def rise(self, *, settle: bool = True) -> bool:
        """Let the next life begin, if one has ended; True when one has."""
        async with self._rising:
            return self.died and await self._rise(settle)

    async def _rise(self, settle: bool) -> bool:
        self.died, self.deaths = False, self.deaths + 1
        self.dccs = [d for d in self.dccs if d is not self.by_kas[self.mortal]]
        flows = {n: list(s.flows) for n, s in self.fabric.switches.items()}
        dcc = self._dcc([self.mortal], self.engines)
        self.dccs.append(dcc)
        for switch in dcc.domain.plan.switches:
            ports = {k.a_port for k in self.plan.links if k.a == switch.name}
            ports |= {k.b_port for k in self.plan.links if k.b == switch.name}
            ports |= {h.port for h in dcc.domain.plan.hosts if h.switch == switch.name}
            dcc.fabric.switch_up(switch.dpid, ports, True)
        await dcc.resume()
        if settle:
            await self.settle()
        live = {label_cookie(p.label) for p in dcc.services.communication.paths.values()}
        for name in dcc.domain.switches:
            gone = [f for f in flows[name] if f not in self.fabric.switches[name].flows]
            assert not [f for f in gone if f.cookie in live and _leads(dcc, name, f)], "a flow of a live object"
        return True

    engines: Engines = jobs.engines()

    async def tell(self, name: str, message: Message, kind: PacketType = PacketType.ANNOUNCE) -> AnyMessage:
        """Ask until there is an answer, as terminals do."""
        for _ in range(3):
            await self.rise()
            deaths = self.deaths
            try:
                answer = await super().tell(name, message, kind)
            except AssertionError:
                if not self.died and self.deaths == deaths:
                    raise
            else:
                if not (isinstance(answer, Refused) and answer.again):
                    return answer
        raise AssertionError(f"{name} got no answer to {message}")

    async def launch(
        self, name: str, object_id: int, visit: int, kind: PacketType = PacketType.MODEL_SHARD
    ) -> list[str]:
        """Launch until the packet arrives, as terminals do."""
        for _ in range(4):
            await self.rise()
            reached = await super().launch(name, object_id, visit, kind)
            if reached:
                return reached
        return []


def _leads(dcc: Dcc, name: str, flow: FlowMod) -> bool:
    return any(at == name and rule == flow for p in dcc.services.communication.paths.values() for at, rule in p.rules)


async def life_of_a_job(folder: Path, mortal: int, says: int) -> Mortals:
    world = Mortals(folder, mortal, says, engines=jobs.engines())
    life = jobs.Life(world)
    await life.begin()
    await life.play(jobs.POOR, jobs.GOOD)
    await world.rise()
    assert [a for a, _ in life.journey] == ["train", "verify", "train", "verify", "verify", "home"]
    assert [(v.accepted) for v in life.verdicts] == [True, True, True]
    ended = [d for d in world.of("job.finished") if d["object_id"] == life.object_id]
    assert ended and ended[-1]["state"] == "finished" and ended[-1]["visits"] == 2
    job = world.by_kas[1].training.book.jobs[life.object_id]
    assert (job.state, len(job.visits)) == ("finished", 2), "no visit is counted twice"
    assert not world.of("error")
    for life_ in world.lives.values():
        life_.store.close() if life_.alive else None
    return world


def how_much(kas: int) -> int:
    """Return how many things a control centre says in the life of a job that nobody disturbs."""
    said: list[int] = []

    async def work() -> None:
        with TemporaryDirectory() as folder:
            world = await life_of_a_job(Path(folder), 0, 0)
            said.append(-1 - world.lives[kas].left)

    run(work)
    return said[0]


SAID: dict[int, int] = {}


@settings(max_examples=12, deadline=None)
@given(mortal=st.sampled_from([1, 2, 3]), share=st.floats(0.0, 1.0))
def test_a_job_ends_as_if_nothing_had_been_wherever_a_control_centre_dies(mortal: int, share: float) -> None:
    says = 1 + int(share * SAID.setdefault(mortal, how_much(mortal)))

    async def work() -> None:
        with TemporaryDirectory() as folder:
            await life_of_a_job(Path(folder), mortal, says)

    run(work)


def test_the_next_life_knows_the_map_the_paths_and_the_jobs(tmp_path: Path) -> None:
    async def work() -> None:
        world = Mortals(tmp_path, 1, -1, engines=jobs.engines())
        life = jobs.Life(world)
        await life.begin()
        await life.hop()
        await world.by_kas[1].gathering.tell()
        before = world.by_kas[1]
        known, paths = {n.name for n in before.services.krrm.nodes()}, dict(before.services.communication.paths)
        sent = len(world.fabric.sent)
        world.lives[1].end()
        assert await world.rise()
        after = world.by_kas[1]
        assert {n.name for n in after.services.krrm.nodes()} == known == after.gathering.restored
        assert after.services.communication.paths == paths and paths
        assert after.training.book.jobs[life.object_id].decisions.keys() == {0}
        mods = [m for _, m in world.fabric.sent[sent:] if isinstance(m, FlowMod)]
        assert not mods, "all that was there was right"
        (told,) = world.of("dcc.resumed")
        assert (told["added"], told["deleted"], told["jobs"], told["labels"]) == (0, 0, 1, len(paths))
        assert told["kept"] > 50
        for one in world.lives.values():
            one.store.close()

    run(work)


def test_a_label_of_which_nothing_is_known_is_cleared_away(tmp_path: Path) -> None:
    """Its object is over: the last life died between the word and the deed."""

    async def work() -> None:
        world = Mortals(tmp_path, 1, -1, engines=jobs.engines())
        await world.start()
        old = FlowMod(3, {"in_port": 1, "ipv4_dst": "240.0.0.9"}, 50, (), cookie=label_cookie(object_label(9)))
        world.fabric.switches["k1s1"].apply(old)
        world.lives[1].end()
        await world.rise()
        assert old not in world.fabric.switches["k1s1"].flows

    run(work)


def test_switches_keep_labels_of_which_a_damaged_file_knows_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        world = Mortals(tmp_path, 1, -1, engines=jobs.engines())
        life = jobs.Life(world)
        await life.begin()
        await life.hop()
        labels = [f for f in world.fabric.switches["k1s1"].flows if f.cookie]
        world.lives[1].end()
        for tail in ("-wal", "-shm"):
            (tmp_path / f"dcc1.sqlite{tail}").unlink(missing_ok=True)
        (tmp_path / "dcc1.sqlite").write_bytes(b"noise" * 999)
        await world.rise()
        assert labels and [f for f in world.fabric.switches["k1s1"].flows if f.cookie] == labels

    run(work)
