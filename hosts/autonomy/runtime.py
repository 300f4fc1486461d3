"""The runtime of autonomous objects at a terminal: it reads what an object carries, has its policy choose, sends it on.

Whatever the object needs is in it (charter and trail) or is asked of terminals; no control centre is. The role trains
or measures as ever; what came of it is written into the trail under this terminal's signature.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.engines.training import gate
from controller.engines.training.evidence import visit_s
from controller.values.decisions import Measured
from hosts.autonomy.choosing import Chooser, Next
from hosts.autonomy.course import Course, course_of
from hosts.autonomy.orders import About, mix_of, models_of, of_use, order_deploy, order_home, order_of, share_of
from hosts.autonomy.policies import POLICIES
from hosts.autonomy.watch import Watch
from hosts.errors import LaunchFailed
from hosts.terminal.recent import Recent
from hosts.terminal.terminal import LAUNCH_ATTEMPTS, Terminal
from packets.aats.journey import Action, Journey, Stop, TrailError, pack, unpack
from packets.aats.probe import Probe, ProbeReply
from packets.messages import Order, Returned, Verdict, VerdictReply, VisitDone
from packets.security.clock import unix_ms
from packets.security.identity import Directory, Identity
from packets.transport import OutgoingObject, ReceivedObject
from packets.wire import Flag, PacketType

HELD = 64
HOME_KEPT = 8  # models of this owner's that may yet be deployed
TRIES = 5  # stops that are tried where those before do not take the object
CHARS = 200
TOLD = 8  # alternatives told of with a decision


@dataclass
class Held:
    """An object that is here: what it came with, how it stands, and the entry of its trail that is being written."""

    journey: Journey
    stop: Stop
    course: Course


class Itself:
    """Guides autonomous objects (a ``Guide``). ``attributes``: what this terminal tells of itself.

    ``homes``: {object: its own journey as it began} of this owner's objects that are out.
    """

    def __init__(self, terminal: Terminal, attributes: Callable[[], About]) -> None:
        self.terminal, self._attributes = terminal, attributes
        self.chooser = Chooser(terminal, terminal.policies or POLICIES)
        self.homes: dict[int, Journey] = {}
        self._held: Recent[Held] = Recent(HELD)
        self._met: Recent[tuple[int, bool]] = Recent()
        self._came_home: Recent[tuple[Held, ReceivedObject]] = Recent(HOME_KEPT)
        self._watch = Watch(terminal)

    @staticmethod
    def steers(obj: ReceivedObject) -> bool:
        """Tell whether an object that came in finds its own way."""
        return obj.type is PacketType.MODEL_SHARD and bool(obj.flags & Flag.AUTONOMOUS)

    def holds(self, object_id: int, visit: int) -> bool:
        """Tell whether such an object is here at this stop."""
        return (object_id, visit) in self._held

    def told(self, message: Probe) -> ProbeReply:
        """Answer a holder that asks how this terminal stands."""
        about, plan, task = self._attributes(), self.terminal.plan, self.terminal.task
        last_visit, at_work = self._met.get(message.object_id, (-1, False))
        ready = message.task == task.name and not self.terminal.leaving and of_use(plan.role, about)
        return ProbeReply(
            name=plan.name, role=plan.role, kas=plan.kas, task=task.name, ready=ready, queue=self.terminal.queue,
            samples_per_s=max(0.0, about.get("compute_samples_per_s", 0.0)), samples=about.get("samples", 0),
            mix=mix_of(about), quality=share_of(about.get("quality", 0.0)), test_samples=about.get("test_samples", 0),
            models=models_of(about), last_visit=last_visit, at_work=at_work,
        )  # fmt: skip

    # --- the guide ---

    def take(self, obj: ReceivedObject) -> tuple[ReceivedObject, Order]:
        """Read what came in, check its charter and trail; return its model, and what is to be done with it."""
        journey, model = unpack(obj.payload)
        here, key = self.terminal.plan.address, (obj.object_id, obj.visit)
        journey.check(
            object_id=obj.object_id, owner=obj.owner, visit=obj.visit, here=here, directory=self._directory
        )  # fmt: skip
        course, action = self.course(journey), journey.trail[-1].next
        stop = self._blank(action, hashlib.sha256(model).digest())
        order = self._order(obj, journey, course, action, stop.digest)
        held, obj = Held(journey, stop, course), msgspec.structs.replace(obj, payload=model)
        if action != "deploy":
            self._held.note(key, held)
        if action == "home":
            self._came_home.note(obj.object_id, (held, obj))
        self._met.note(obj.object_id, (obj.visit, action not in ("home", "deploy")))
        return obj, order

    def _order(self, obj: ReceivedObject, journey: Journey, course: Course, action: Action, digest: bytes) -> Order:
        at: dict[str, int] = {"object_id": obj.object_id, "visit": obj.visit}
        if action == "deploy":
            return order_deploy(course, digest, **at)
        if action != "home":
            return order_of(course, action, self._attributes(), **at)
        if obj.object_id not in self.homes:
            raise TrailError(f"{self.terminal.name} waits for no such object (any more): not taken")
        return order_home(course, journey.trail, **at)

    def done(self, message: VisitDone) -> None:
        """Write down a training visit; an object that is lost here is let go of, whoever sent it keeps a copy."""
        key = (message.object_id, message.visit)
        if message.lost:
            self.lost(*key)
            return
        about = self._attributes()
        self._write(
            key, samples=message.samples, epochs=message.epochs, seconds=message.train_s, mix=mix_of(about),
            loss=message.loss if math.isfinite(message.loss) else 0.0, quality=share_of(about.get("quality", 0.0)),
            problem=message.problem[:CHARS],
        )  # fmt: skip

    def lost(self, object_id: int, visit: int) -> None:
        """Let go of an object that came to grief here: who sent it here keeps a copy, and will hear that it is gone."""
        self._held.pop((object_id, visit), None)
        if self._met.get(object_id) == (visit, True):
            del self._met[object_id]

    def judge(self, message: Verdict) -> VerdictReply:
        """Say whether a visit is kept, as a control centre's gate does, and write down what was measured."""
        key = (message.object_id, message.visit)
        course, action = self._held[key].course, self._held[key].stop.action
        after = Measured(broad=message.broad, per_group=message.per_group, samples=message.samples)
        accepted, reason = True, "kept as it is"
        if action == "verify" and course.spec.gate:
            accepted, reason = gate.judge(course.request, course.measured, after)
        self._write(
            key, samples=message.samples, seconds=message.eval_s, broad=message.broad, per_group=message.per_group,
            share=message.share, whole=message.whole, accepted=accepted,
        )  # fmt: skip
        return VerdictReply(accepted=accepted, reason=reason)

    def returned(self, message: Returned) -> None:
        """The model is home and stored: keep the trail beside it, and end its job."""
        held = self._held.pop((message.object_id, self._met[message.object_id][0]))
        self.homes.pop(message.object_id, None)
        text = msgspec.json.encode({"charter": held.journey.charter, "trail": held.journey.trail})
        for folder in (self.terminal.folder / f"{message.object_id:x}", self.terminal.folder):
            (folder / "trail.json").write_bytes(msgspec.json.format(text))
        why, verified = held.journey.trail[-1].why, held.stop.digest == held.course.digest
        if held.course.pool and not verified:
            why = f"what came home is not the model that was verified ({why})"
        state = "finished" if verified and held.course.met() else "failed"
        self.finish(message.object_id, held.course, state, why)

    def go_on(self, onward: OutgoingObject) -> None:
        """Choose where the object goes, write the address into it, and send it; ``LaunchFailed``."""
        held = self._held.pop((onward.object_id, onward.visit - 1))
        before = held.course.reached
        held.course.take(msgspec.structs.replace(held.stop, digest=hashlib.sha256(onward.payload).digest()))
        if held.course.reached and not before:
            self._tell("job.reached", onward.object_id, held.course, visit=onward.visit - 1)
        self.send(held, onward)

    # --- on the way ---

    def begin(self, journey: Journey, fresh: OutgoingObject) -> None:
        """Send an object of this owner's on its journey; ``LaunchFailed``."""
        held = Held(journey, self._blank("start"), self.course(journey))
        self.homes[fresh.object_id] = journey
        held.course.take(held.stop)
        self.send(held, fresh)

    def deploy(self, object_id: object) -> Next:
        """Send a model that has come home on to an MDFP that it chooses; ``TrailError``: none has, ``LaunchFailed``."""
        if not isinstance(object_id, int) or object_id not in self._came_home:
            raise TrailError(f"no model {object_id} has come home to {self.terminal.name} by its own way, lately")
        held, obj = self._came_home[object_id]
        if held.stop.digest != held.course.digest:
            raise TrailError(f"model {object_id:#x} has come home unverified: no MDFP would take it")
        held.course.take(held.stop)
        visit = obj.visit + 1
        return self.send(held, OutgoingObject(
            object_id=object_id, type=obj.type, payload=obj.payload, owner=obj.owner, visit=visit, visit_limit=visit,
            requirements=obj.requirements,
        ))  # fmt: skip

    def send(self, held: Held, onward: OutgoingObject, refused: str = "") -> Next:
        """Send an object to the stop that is wanted; where that does not take it, to another one; ``LaunchFailed``."""
        tried, why = {refused} if refused else set[str](), ""
        for _ in range(TRIES):
            held.course.elapsed_s = elapsed_s(held.journey)
            going = self.chooser.choose(held.course, onward, tried)
            self._tell_decision(onward, going)
            try:
                self._launch(held, onward, going)
            except LaunchFailed as error:
                why = str(error)
                tried.add(going.address)
                if going.action == "home" or self.terminal.stopping.is_set():
                    break
                self.terminal.emit("warning", text=f"{why}; another stop is chosen", node=self.terminal.name)
            else:
                return going
        raise LaunchFailed(f"object {onward.object_id:#x} found no way from {self.terminal.name}: {why}")

    def _launch(self, held: Held, onward: OutgoingObject, going: Next) -> None:
        """Sign off the entry, write the address into the object, launch it, and see that it goes on from there."""
        stop = msgspec.structs.replace(
            held.stop, next=going.action, to=going.address, why=going.why[:CHARS], at_ms=now_ms(),
            digest=hashlib.sha256(onward.payload).digest(), route=list(going.route),
        )  # fmt: skip
        journey = held.journey.grown(stop, self._identity)
        flags = Flag.AUTONOMOUS | (Flag.END_TO_END if journey.trail[0].route else Flag(0))
        addressed = msgspec.structs.replace(
            onward, payload=pack(journey, onward.payload), to=going.address, flags=flags
        )  # fmt: skip
        self.terminal.launch(addressed, attempts=LAUNCH_ATTEMPTS if going.action == "home" else 1)
        if onward.visit:
            self._met.note(onward.object_id, (onward.visit - 1, False))
        if going.action != "home":
            self._watch.follow(going.address, onward, lambda: self._again(held, onward, going))

    def _again(self, held: Held, onward: OutgoingObject, lost: Next) -> None:
        """Send the copy elsewhere of an object that is lost where it went; ``LaunchFailed``."""
        began_s, members = self.terminal.clock(), {m.address: m for m in self.terminal.members}
        going = self.send(held, onward, lost.address)
        before, now = members[lost.address], members.get(going.address)
        self.terminal.emit(
            "object.resteered", object_id=onward.object_id, visit=onward.visit, holder=self.terminal.name, alive=False,
            reason=f"{before.name} does not answer for it any more", from_node=before.name, from_kas=before.kas,
            to_node=now.name if now else "", to_kas=now.kas if now else 0,
            resteer_ms=round((self.terminal.clock() - began_s) * 1e3, 2),
        )  # fmt: skip

    # --- the trail ---

    def course(self, journey: Journey) -> Course:
        """Return how a journey stands."""
        return course_of(journey.charter.spec, journey.trail, self.terminal.task.groups, elapsed_s(journey))

    def _blank(self, action: Action, digest: bytes = bytes(32)) -> Stop:
        """Return an entry that is still to be written."""
        plan = self.terminal.plan
        return Stop(
            address=plan.address, kas=plan.kas, action=action, next="home", to=plan.address, why="", at_ms=0,
            digest=digest,
        )  # fmt: skip

    def _write(self, key: tuple[int, int], **found: Any) -> None:
        held = self._held[key]
        held.stop = msgspec.structs.replace(held.stop, **found)

    @property
    def _identity(self) -> Identity | None:
        return self.terminal.guard.identity if self.terminal.guard else None

    @property
    def _directory(self) -> Directory | None:
        return self.terminal.guard.directory if self.terminal.guard else None

    # --- what is told ---

    def finish(self, object_id: int, course: Course, state: str, why: str) -> None:
        """Tell that a job of this owner is over."""
        self._tell("job.finished", object_id, course, state=state, reason=why)

    def _tell(self, kind: str, object_id: int, course: Course, **more: object) -> None:
        pooled = gate.pooled(course.pool.values()) or Measured(broad=0.0, per_group={}, samples=0)
        self.terminal.emit(
            kind, object_id=object_id, broad=pooled.broad, visits=len(course.visits), samples=pooled.samples,
            expert=pooled.per_group.get(course.spec.expert_group or "", 0.0), **more,
        )  # fmt: skip

    def _tell_decision(self, onward: OutgoingObject, going: Next) -> None:
        terminal = self.terminal
        there = next((m for m in terminal.members if m.address == going.address), None)
        chosen = next((o for o in going.options if o.handle == going.address), None)
        others = [o for o in going.options if o is not chosen][:TOLD]
        terminal.emit(
            "job.decided", object_id=onward.object_id, visit=onward.visit, action=going.action, node=terminal.name,
            kas=there.kas if there else terminal.plan.kas, handle=going.address, to=there.name if there else "",
            reason=going.why, offers=len(going.options), heard=going.heard,
            cost_s=round(visit_s(chosen), 3) if chosen else None, cost_bytes=len(onward.payload) if chosen else None,
            alternatives=[
                {"kas": o.kas, "handle": o.handle, "samples": o.samples, "trust": round(o.trust, 3),
                 "cost_s": round(visit_s(o), 3), "cost_bytes": len(onward.payload)} for o in others
            ],
        )  # fmt: skip


def now_ms() -> int:
    """Return the wall clock, by which journeys are timed."""
    return unix_ms()


def elapsed_s(journey: Journey) -> float:
    """Return how long a journey has taken so far."""
    return max(0.0, (now_ms() - journey.charter.issued_ms) / 1e3)
