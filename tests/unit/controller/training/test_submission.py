"""The owner's word on a running job: change it, stop it; and nobody else's."""

from __future__ import annotations

import msgspec

from packets.messages import Change, Halt, JobStatus, Message, Refused
from tests.fake_fabric import World, run
from tests.unit.controller.training.test_jobs import GOOD, PLAN, POOR, SPEC, Life, engines


async def say(life: Life, word: Message, name: str = "owner1") -> object:
    return await life.world.tell(name, word)


def test_a_larger_budget_is_used_and_a_lower_target_is_enough() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(msgspec.structs.replace(SPEC, max_visits=1))
        order = await life.hop()
        change = Change(name="owner1", object_id=life.object_id, max_visits=3, broad_accuracy=0.55, expert_accuracy=0.3)
        status = await say(life, change)
        assert isinstance(status, JobStatus) and status.state == "running"
        await life.train(order)
        await life.play(POOR)
        assert life.finished["state"] == "finished", life.finished
        (told,) = life.world.of("job.changed")
        assert told["changes"] == {"max_visits": 3, "broad_accuracy": 0.55, "expert_accuracy": 0.3}
        row = life.world.by_kas[1].services.store.rows("jobs")[0]
        assert '"max_visits":3' in row["spec"]

    run(work)


def test_a_stopped_job_halts_its_training_and_comes_home_measured() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.train(await life.hop())
        await life.hop()
        await life.verify(POOR)
        order = await life.hop()
        assert order.action == "train"
        assert isinstance(await say(life, Change(name="owner1", object_id=life.object_id, stop=True)), JobStatus)
        asked = [(name, m) for name, m in life.world.asked if isinstance(m, Halt)]
        assert [(name, m.object_id) for name, m in asked] == [(life.at, life.object_id)]
        await life.train(order, samples=0, problem="training stopped: the job was stopped by its owner")
        await life.play(POOR)
        assert [a for a, _ in life.journey] == ["train", "verify", "train", "verify", "home"]
        assert life.finished["state"] == "stopped" and "stopped by its owner" in str(life.finished["reason"])
        assert life.finished["broad"] == POOR["broad"], "what it had learned was measured"

    run(work)


def test_only_the_owner_may_and_only_while_it_runs() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        refused = await say(life, Change(name="h11", object_id=life.object_id, stop=True), "h11")
        assert isinstance(refused, Refused) and "is not h11's" in refused.reason
        await life.play(GOOD)
        late = await say(life, Change(name="owner1", object_id=life.object_id, stop=True))
        assert isinstance(late, Refused) and "is over (finished)" in late.reason

    run(work)
