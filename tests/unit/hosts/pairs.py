"""Who takes part where two models are learned to answer as one: an MPVU with samples, an owner with both at home."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from hosts.learning.task import NodeData, model_to_bytes, samples_to_bytes
from hosts.learning.ways.models import task_of
from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    OrderRequest,
    Remeasured,
    Returned,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    decode_message,
    encode_message,
)
from packets.wire import PacketType
from tests.unit.hosts.test_roles import JOB, Bench, arrived, ordered, question, the_task

BESIDE_JOB, COPY = JOB + 1, 900


def mpvu(tmp_path: Path, parts: dict[str, NodeData], action: str, **more: Any) -> Bench:
    """Return an MPVU with the test samples of both data nodes."""
    script = {
        OrderRequest: lambda q: ordered("keep_test_sample" if q.object_id < COPY else action, **more)(q),
        Verdict: VerdictReply(accepted=True), Remeasured: Ack(),
    }  # fmt: skip
    bench = Bench("mpvu", script, tmp_path)
    for number, data in enumerate(parts.values()):
        payload = samples_to_bytes(data.test[0])
        bench.role.object_arrived(arrived(payload, object_id=800 + number, visit=0, kind=PacketType.DATA_SHARD))
    return bench


def owner(tmp_path: Path, beside: str) -> tuple[Bench, bytes, bytes]:
    """Return an owner with a task's own model and the one of that name at home, and both."""
    numbers = iter((JOB, BESIDE_JOB))
    script = {
        Submit: lambda _: SubmitReply(object_id=next(numbers), admitted=True),
        OrderRequest: ordered("home", accuracy={"broad": 0.8}), Returned: Ack(),
        AnnounceObject: AnnounceReply(object_id=COPY),
    }  # fmt: skip
    bench = Bench("model_owner", script, tmp_path)
    payloads = []
    for model in ("", beside):
        bench.role.command({"op": "submit", "spec": {"task": "vignettes", "model": model}})
        payloads.append(model_to_bytes(task_of(the_task(), model).new_model(5)))
    for job, payload in zip((JOB, BESIDE_JOB), payloads, strict=True):
        bench.role.object_arrived(arrived(payload, object_id=job, visit=9))
    assert bench.kinds().count("object.returned") == 2
    return bench, payloads[0], payloads[1]


def from_dcc(bench: Bench, word: Remeasured) -> Any:
    """Have a control centre say it to who is on the bench; return the answer."""
    bench.role.message_arrived(question(transfer_id=random.getrandbits(31)), encode_message(word), (DCC_ADDRESS, 55831))
    return decode_message(bench.network.replied[-1][1])
