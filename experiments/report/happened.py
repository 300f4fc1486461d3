"""What happened to deployed models while they were asked: the world drifts, they are measured, trained on, replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from packets.events import Event

Data = Mapping[str, Any]


def _timed(data: Data) -> str:
    return f"{data['node']} drifts" if data.get("do") == "drift" else f"{data.get('do')} of {data.get('node')}"


def _measured(data: Data) -> str:
    return f"an MPVU measures {data['broad']:.3f} on {data['samples']} late samples ({data['was']:.3f} when verified)"


WORDS: dict[str, tuple[str, Callable[[Data], str]]] = {
    "timed.event": ("event", _timed),
    "model.remeasured": ("holds", _measured),
    "model.drifted": ("fallen", lambda data: f"{_measured(data)}: {'; '.join(data['reasons'])}"),
    "model.recalibrating": ("trained on", lambda data: f"{data['node']} has it trained on, as {data['object_id']:#x}"),
    "model.redeployed": (
        "deployed anew",
        lambda data: f"in {len(data['labels'])} places, accuracy {data['broad']:.3f}, after {data['seconds']:.1f} s",
    ),
}


def happened(events: Sequence[Event], start_unix_s: float) -> list[dict[str, Any]]:
    """Return what happened, in order: ``at_s`` since the load began, ``what`` in a word, ``text`` for a person."""
    found = []
    for event in events:
        if event.kind in WORDS:
            what, text = WORDS[event.kind]
            found.append({"at_s": round(event.t_unix_s - start_unix_s, 2), "what": what, "text": text(event.data)})
    return found
