"""Folds of the network's own events: plan, K-AS, terminals, links, phases, notices."""

from __future__ import annotations

from typing import Any

from controller.oam.state.canvas import Canvas, Record
from controller.oam.state.fields import Data, figures, identity, mapping, names, number, text, web_safe, whole
from packets.events import Event

LOAD_HOLDS_S = 2.5
LABEL_MASK = 0xFFF_FFFF
LINK_FIGURES = ("rate_mbps", "delay_ms", "measured_mbps", "measured_delay_ms")


def run_phase(canvas: Canvas, event: Event) -> None:
    """A phase of the run began or ended, after so many seconds."""
    phase, ended = text(event.data, "phase"), text(event.data, "state") == "end"
    phases = canvas.touch("run", "phases", order=[], seconds={})
    if phase not in phases["order"] and len(phases["order"]) < 64:
        phases["order"].append(phase)
    if ended:
        phases["seconds"][phase] = number(event.data, "seconds")
    now = canvas.touch("run", "phase")
    now.update(phase=phase, state="end" if ended else "start", t_unix_s=event.t_unix_s)
    now["seconds"] = number(event.data, "seconds")


def network_up(canvas: Canvas, event: Event) -> None:
    """The network stands as planned: its switches, terminals and links."""
    plan = mapping(event.data, "plan")
    run = canvas.touch("run", "network")
    run.update(name=text(plan, "name"), up_unix_s=event.t_unix_s)
    for switch in _records(plan, "switches"):
        _plan_switch(canvas, switch)
    for host in _records(plan, "hosts"):
        _plan_host(canvas, host)
    for link in _records(plan, "links"):
        _plan_link(canvas, link)
    kinds = mapping(event.data, "kinds")
    for kas in (k for k in kinds if str(k).isdecimal()):
        _kas(canvas, int(kas))["kind"] = text(kinds, kas)


def _plan_switch(canvas: Canvas, data: Data) -> None:
    name, kas = text(data, "name"), whole(data, "kas")
    record = canvas.touch("switches", name)
    record.update(name=name, kas=kas, gateway=bool(data.get("gateway")), dpid=whole(data, "dpid"))
    _kas(canvas, kas)


def _plan_host(canvas: Canvas, data: Data) -> None:
    record = _terminal(canvas, text(data, "name"))
    record.update(role=text(data, "role", "host"), kas=whole(data, "kas"))
    record.update(address=text(data, "address"), switch=text(data, "switch"))
    _kas(canvas, record["kas"])


def _plan_link(canvas: Canvas, data: Data) -> None:
    a, b = text(data, "a"), text(data, "b")
    record = canvas.touch("links", f"{a}-{b}")
    wan = a in canvas.sections["switches"] and _kas_of(canvas, a) != _kas_of(canvas, b)
    record.update(name=f"{a}-{b}", a=a, b=b, wan=wan, access=a in canvas.sections["terminals"])
    record.update(_some(data, LINK_FIGURES))
    for one, other in ((a, b), (b, a)):
        beside = canvas.neighbours.setdefault(one, [])
        if other not in beside:
            beside.append(other)


def link_calibrated(canvas: Canvas, event: Event) -> None:
    """A link was measured against what was configured (Mbit/s, milliseconds)."""
    link = _link(canvas, text(event.data, "link"))
    link.update(ok=event.data.get("ok") is not False, **_some(event.data, LINK_FIGURES))


def link_load(canvas: Canvas, event: Event) -> None:
    """Take byte counters of one port; a link's load is that of its busiest direction, as any of its ports saw it."""
    data = event.data
    link = _loaded_link(canvas, data)
    ports = link.setdefault("ports", {})
    port = f"{text(data, 'switch')}/{text(data, 'port')}" if data.get("switch") else event.source
    now = {
        "t": event.t_unix_s,
        "tx_bytes": number(data, "tx_bytes") or 0.0,
        "rx_bytes": number(data, "rx_bytes") or 0.0,
    }
    ports[port] = {**now, "mbps": _mbps(data, ports.get(port), now)}
    link["bytes"] = max(p["tx_bytes"] + p["rx_bytes"] for p in ports.values())
    _set_load(link, event.t_unix_s)


def _mbps(data: Data, before: Record | None, now: dict[str, float]) -> float:
    """Return the busiest direction's rate: as told, else from the counters' growth since the last report."""
    told = [rate for key in ("tx_mbps", "rx_mbps") if (rate := number(data, key)) is not None]
    if told:
        return max(told)
    if before is None or now["t"] <= before["t"]:
        return 0.0
    moved: float = max(now["tx_bytes"] - before["tx_bytes"], now["rx_bytes"] - before["rx_bytes"], 0.0)
    return moved * 8e-6 / float(now["t"] - before["t"])


def _set_load(link: Record, now_s: float) -> None:
    rates = [port["mbps"] for port in link.get("ports", {}).values() if port["t"] > now_s - LOAD_HOLDS_S]
    link["mbps"] = round(max(rates, default=0.0), 3)
    link["load"] = round(min(link["mbps"] / link["rate_mbps"], 1.0), 3) if link.get("rate_mbps") else None


def fade(canvas: Canvas, now_s: float) -> None:
    """A port is only reported when its counters moved: silence for a while is no load."""
    for name, link in canvas.sections["links"].items():
        if link.get("mbps") and max(port["t"] for port in link["ports"].values()) < now_s - LOAD_HOLDS_S:
            _set_load(canvas.touch("links", name), now_s)


def dcc_ready(canvas: Canvas, event: Event) -> None:
    """A control centre has all switches of its K-AS."""
    listed = event.data.get("kas")
    for kas in listed if isinstance(listed, list) else [whole(event.data, "kas")]:
        _kas(canvas, whole({"kas": kas}, "kas")).update(ready=True, ready_unix_s=event.t_unix_s)


def packet_in(canvas: Canvas, event: Event) -> None:
    """A first packet went up: one more decision of this K-AS."""
    record = _kas(canvas, whole(event.data, "kas"))
    record["packet_ins"] += 1


FRESH = ("terminals", "reports_per_s", "telemetry_bytes_per_s", "p50_ms", "p99_ms")


def agent_ready(canvas: Canvas, event: Event) -> None:
    """A terminal's agent runs and has registered."""
    record = _terminal(canvas, text(event.data, "name"))
    known = {key: value for key in ("role", "address") if (value := text(event.data, key))}
    record.update(known, ready=True, state="idle", since_unix_s=event.t_unix_s)
    record["kas"] = whole(event.data, "kas", record["kas"])


def agent_state(canvas: Canvas, event: Event) -> None:
    """A terminal's agent does something else now."""
    record = _terminal(canvas, text(event.data, "name"))
    record.update(state=text(event.data, "state", "idle"), object_id=identity(event.data))
    record.update(since_unix_s=event.t_unix_s, ready=True)


def agent_gone(canvas: Canvas, event: Event) -> None:
    """A terminal's agent has ended, or is taken for dead."""
    record = _terminal(canvas, text(event.data, "name"))
    record.update(state="gone", ready=False, since_unix_s=event.t_unix_s)


def krrm_updated(canvas: Canvas, event: Event) -> None:
    """Merge what the K-AS's map now knows; an update that changes nothing does not count as a change."""
    name, told = text(event.data, "name"), web_safe(mapping(event.data, "attributes"))
    known = (canvas.get("terminals", name) or {}).get("attributes", {})
    merged = dict(list({**known, **told}.items())[:64])
    if merged != known:
        record = _terminal(canvas, name)
        record["attributes"] = merged
        record["models"] = names(merged, "models") or record["models"]


def map_fresh(canvas: Canvas, event: Event) -> None:
    """What keeping a K-AS's map fresh costs, and how far it runs behind."""
    listed = event.data.get("kas")
    told = {name: value for name in FRESH if (value := number(event.data, name)) is not None}
    for kas in listed if isinstance(listed, list) else []:
        _kas(canvas, whole({"kas": kas}, "kas"))["fresh"] = told


def model_deployed(canvas: Canvas, event: Event) -> None:
    """An MDFP serves a model from now on, of these accuracies by group."""
    record, task = _terminal(canvas, text(event.data, "node")), text(event.data, "task")
    record["models"] = sorted({*record["models"], task} - {""})
    record["deployed"] = {**record.get("deployed", {}), task: figures(event.data, "accuracy")}
    label = str(whole(event.data, "object_id") & LABEL_MASK)
    record["labels"] = dict(list({**record.get("labels", {}), label: task}.items())[-64:])


def notice(canvas: Canvas, event: Event) -> None:
    """Warnings, errors and refused packets, each with its text."""
    said = text(event.data, "text") or text(event.data, "reason") or event.kind
    key = f"{event.kind}/{event.source}/{said[:80]}"
    record = canvas.touch("notices", key, kind=event.kind, source=event.source, text=said, count=0)
    record["count"] += max(1, whole(event.data, "more"))
    record["t_unix_s"] = event.t_unix_s


def revoked(canvas: Canvas, event: Event) -> None:
    """A terminal's keys are refused from now on, whatever its agent does."""
    record = _terminal(canvas, text(event.data, "name"))
    record.update(state="revoked", revoked=True, ready=False, since_unix_s=event.t_unix_s)


def restored(canvas: Canvas, event: Event) -> None:
    """A terminal is let in again: its agent may register."""
    _terminal(canvas, text(event.data, "name")).update(state="gone", revoked=False, since_unix_s=event.t_unix_s)


def noted(canvas: Canvas, event: Event) -> None:
    """An event that is shown in the list and changes no record."""


def _terminal(canvas: Canvas, name: str) -> Record:
    if not name:
        raise ValueError("no terminal named")
    return canvas.touch(
        "terminals", name, name=name, role="host", kas=0, address="", switch="", state="waiting", ready=False,
        object_id="", models=[],
    )  # fmt: skip


def _link(canvas: Canvas, name: str) -> Record:
    """Return a link by its name, in either direction; a link that no plan named is an oddity, not a new link."""
    known = canvas.sections["links"]
    reverse = "-".join(reversed(name.split("-")))
    if name not in known and reverse not in known:
        raise ValueError("a link that is not in the plan")
    return canvas.touch("links", name if name in known else reverse)


def _loaded_link(canvas: Canvas, data: Data) -> Record:
    """Return the link that a report speaks of; a border whose far end is not known yet is told by K-AS number."""
    beyond, switch = whole(data, "neighbour_kas"), text(data, "switch")
    for name, link in canvas.sections["links"].items() if beyond else ():
        if link.get("wan") and switch in (link["a"], link["b"]):
            far = link["b"] if link["a"] == switch else link["a"]
            if _kas_of(canvas, far) == beyond:
                return canvas.touch("links", name)
    return _link(canvas, text(data, "link"))


def _kas(canvas: Canvas, kas: int) -> Record:
    return canvas.touch("kas", str(kas), kas=kas, ready=False, packet_ins=0)


def _kas_of(canvas: Canvas, switch: str) -> Any:
    return (canvas.get("switches", switch) or {}).get("kas")


def _records(data: Data, key: str) -> list[Data]:
    value = data.get(key)
    return [item for item in value if isinstance(item, dict) and item] if isinstance(value, list) else []


def _some(data: Data, keys: tuple[str, ...]) -> dict[str, float]:
    return {key: figure for key in keys if (figure := number(data, key)) is not None}


FOLDS = {
    "run.phase": run_phase,
    "network.up": network_up,
    "link.calibrated": link_calibrated,
    "link.load": link_load,
    "dcc.ready": dcc_ready,
    "packet.in": packet_in,
    "agent.ready": agent_ready,
    "agent.state": agent_state,
    "agent.gone": agent_gone,
    "krrm.updated": krrm_updated,
    "model.deployed": model_deployed,
    "packet.refused": notice,
    "frame.dropped": notice,
    "terminal.revoked": revoked,
    "terminal.restored": restored,
    "engine.failed": notice,
    "engine.borrowed": noted,
    "engine.lent": noted,
    "at.decided": noted,
    "holder.decided": noted,
    "proposal.refused": noted,
    "offers.refused": notice,
    "warning": notice,
    "error": notice,
    "border.ready": noted,
    "border.up": noted,
    "border.down": noted,
    "border.way": noted,
    "border.refused": notice,
    "host.confirmed": noted,
    "terminal.joined": noted,
    "terminal.left": noted,
    "map.fresh": map_fresh,
    "request.refused": noted,
    "zygote.ready": noted,
    "link.confirmed": noted,
    "timed.event": noted,
    "data.collected": noted,
    "trust.changed": noted,
    "object.duplicate": noted,
    "object.resteered": noted,
    "object.rerouted": noted,
    "object.handed_over": noted,
    "object.sent": noted,
    "object.released": noted,
    "job.recovered": noted,
    "parcel.kept": noted,
    "terminal.withdrawn": noted,
}
