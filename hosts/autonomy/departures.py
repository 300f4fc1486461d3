"""A model owner's autonomous objects: admitted on what terminals say of themselves, sent off, given up when overdue."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

import msgspec

from controller.engines.training import tfam
from controller.values.decisions import Assessment
from hosts.autonomy.policies import find_policy
from hosts.autonomy.runtime import Itself, elapsed_s, now_ms
from hosts.errors import BadCommand, HostError
from hosts.terminal.terminal import Terminal
from packets.aats.journey import MAX_STOPS, Charter, Journey, begun
from packets.errors import DaitnError
from packets.labels import SEQUENCE_BITS, make_object_id
from packets.messages import JobSpec, SubmitReply
from packets.transport import OutgoingObject

NONCE_BITS = 36
OVERDUE_S = 20.0  # after its deadline an object is not waited for any longer
CHARS = 400


class Departures:
    """Sends autonomous objects off and waits for them; no control centre hears of it."""

    def __init__(self, terminal: Terminal, itself: Itself) -> None:
        self.terminal, self.itself = terminal, itself

    def submit(self, spec: JobSpec, fresh: Callable[[int], OutgoingObject]) -> SubmitReply:
        """Ask terminals, have T-FAM assess what they say, and send the object off if that admits it.

        ``fresh`` makes the object of its identity. ``BadCommand``: the job asks for what this does not do.
        """
        self._check(spec)
        terminal, object_id = self.terminal, self._new_identity()
        charter = Charter(object_id=object_id, owner=terminal.plan.address, spec=spec, issued_ms=now_ms())
        journey = begun(charter, terminal.guard.identity if terminal.guard else None)
        terminal.emit("job.submitted", object_id=object_id, owner=terminal.name, spec=msgspec.to_builtins(spec))
        verdict = self._assess(journey, object_id)
        terminal.emit(
            "job.assessed", object_id=object_id, owner=terminal.name, admitted=verdict.admitted,
            reasons=verdict.reasons, nearest=verdict.nearest, predicted=verdict.predicted,
        )  # fmt: skip
        if verdict.admitted:
            obj = fresh(object_id)
            obj = msgspec.structs.replace(obj, visit_limit=min(obj.visit_limit, MAX_STOPS - 2))
            if not terminal.submit(lambda: self._send_off(journey, obj)):
                raise BadCommand(f"{terminal.name} is full: object {object_id:#x} was not launched")
        return SubmitReply(
            object_id=object_id if verdict.admitted else 0, admitted=verdict.admitted,
            reasons=[r[:CHARS] for r in verdict.reasons[:5]], nearest=verdict.nearest, predicted=verdict.predicted,
        )  # fmt: skip

    def _check(self, spec: JobSpec) -> None:
        try:
            find_policy(spec.policy, spec.parameters, self.itself.chooser.policies)
        except HostError as error:
            raise BadCommand(f"job spec: {error}") from None
        if spec.method != "routed" or spec.engines:
            what = f"method {spec.method}" if spec.method != "routed" else "engines of one's own"
            raise BadCommand(f"job spec: {what}: with steering aats a model travels alone, by the engines of terminals")

    def _new_identity(self) -> int:
        """Return an identity by chance: no label of it is ever on the wire, so that none has to be kept free."""
        sequence, nonce = secrets.randbits(SEQUENCE_BITS), secrets.randbits(NONCE_BITS)
        return make_object_id(self.terminal.plan.kas, sequence, nonce)

    def _assess(self, journey: Journey, object_id: int) -> Assessment:
        chooser, course = self.itself.chooser, self.itself.course(journey)
        rng = random.Random(course.spec.seed)
        options = chooser.options(course, chooser.heard("data", object_id, set(), rng))
        return tfam.assess(course.request, options, len(chooser.heard("mpvu", object_id, set(), rng)))

    def _send_off(self, journey: Journey, obj: OutgoingObject) -> None:
        try:
            self.itself.begin(journey, obj)
        except DaitnError as error:
            self._give_up(obj.object_id, " ".join(str(error).split()))

    def deploy(self, object_id: object) -> dict[str, object]:
        """Have a model that came home find an MDFP, and be there; ``TrailError``, ``LaunchFailed``."""
        return {"object_id": object_id, "to": self.itself.deploy(object_id).address}

    def tick(self) -> None:
        """Give up what is overdue."""
        for object_id, journey in list(self.itself.homes.items()):
            deadline_s = journey.charter.spec.deadline_s
            if elapsed_s(journey) > deadline_s + OVERDUE_S:
                self._give_up(object_id, f"it did not come home within {OVERDUE_S:g} s of its {deadline_s:g} s")

    def _give_up(self, object_id: int, why: str) -> None:
        journey = self.itself.homes.pop(object_id, None)
        if journey is not None:
            self.terminal.complain(f"object {object_id:#x} of {self.terminal.name}: {why}", object_id=object_id)
            self.itself.finish(object_id, self.itself.course(journey), "failed", why)
