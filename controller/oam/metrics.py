"""Every metric of a run in one place: name, unit, help and labels; fed by the event stream, read at ``/metrics``.

The registry is passed in.  ``metrics_table`` writes the documentation from the same declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from controller.oam.state.fields import Data, buckets, figures, identity, mapping, number, text, whole
from packets.events import Event
from packets.security.reasons import WORDS

Kind = Literal["counter", "gauge", "histogram"]
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
LATENCIES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MBPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0, 200.0)
MILLISECONDS_TO_S = 1e-3
MAX_OBSERVED = 20_000  # latencies of one event
MAX_LABEL_VALUES = 200  # of one label of one metric: what names come off the wire must not grow memory for ever


class Metric(NamedTuple):
    """One declared metric; ``unit`` is the end of its name ("" for a plain count)."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


METRICS = (
    Metric("daitn_events_total", "counter", "", "Events taken by the collector, by kind.", ("kind",)),
    Metric("daitn_agents_ready", "gauge", "", "Terminals whose agent is ready, by role.", ("role",)),
    Metric("daitn_dcc_ready", "gauge", "", "1 when the control centre of the K-AS is ready.", ("kas",)),
    Metric("daitn_phase_seconds", "gauge", "seconds", "Duration of each phase of the run.", ("phase",)),
    Metric("daitn_engine_failures_total", "counter", "", "Decisions that an own engine failed to give.", ("engine",)),
    Metric("daitn_packet_ins_total", "counter", "", "Packets that had no rule and went to a DCC.", ("kas",)),
    Metric("daitn_packets_refused_total", "counter", "", "Packets and requests refused, by reason.", ("reason",)),
    Metric("daitn_frames_dropped_total", "counter", "", "Frames that switches dropped, by reason.", ("reason",)),
    Metric("daitn_terminals_revoked", "gauge", "", "1 while a terminal is revoked.", ("node",)),
    Metric("daitn_switches_refused_total", "counter", "", "Connections without a switch's certificate.", ("kas",)),
    Metric("daitn_flows_installed_total", "counter", "", "Flows laid for labels.", ("kas",)),
    Metric("daitn_objects_arrived_total", "counter", "", "Objects delivered whole and checked.", ("node",)),
    Metric("daitn_object_bytes_total", "counter", "bytes", "Payload bytes of delivered objects.", ("node",)),
    Metric("daitn_object_transfer_seconds", "histogram", "seconds", "First to last byte of an object.", ()),
    Metric("daitn_object_goodput_mbps", "histogram", "mbps", "Goodput of an object's transfer (Mbit/s).", (), MBPS),
    Metric("daitn_retransmissions_total", "counter", "", "Datagrams that a sender sent again.", ()),
    Metric("daitn_visit_train_seconds", "histogram", "seconds", "Training time of a visit.", ()),
    Metric("daitn_visits_total", "counter", "", "Stops made, by what was done there.", ("action",)),
    Metric(
        "daitn_job_accuracy_ratio", "gauge", "ratio", "Last measured accuracy of a job's model.", ("job", "measure")
    ),
    Metric("daitn_jobs_total", "counter", "", "Jobs, by how they ended (or were admitted).", ("state",)),
    Metric("daitn_link_bytes", "gauge", "bytes", "Port counters of a link as last reported.", ("link", "direction")),
    Metric("daitn_link_rate_mbps", "gauge", "mbps", "Rate of a link as last reported (Mbit/s).", ("link", "direction")),
    Metric("daitn_query_latency_seconds", "histogram", "seconds", "Query sent to answer received.", ()),
    Metric("daitn_queries_total", "counter", "", "Answered queries; right says whether as expected.", ("right",)),
    Metric(
        "daitn_load_queries_total", "counter", "", "Queries of loads: asked, and what became of them.", ("outcome",)
    ),
    Metric("daitn_load_under_way", "gauge", "", "Queries of a load not answered yet, by asker.", ("asker",)),
    Metric("daitn_load_latency_seconds", "histogram", "seconds", "Query of a load due to its answer.", (), LATENCIES_S),
    Metric("daitn_models_out", "gauge", "", "1 while a node that serves models is given no queries.", ("node",)),
    Metric("daitn_deployed_accuracy", "gauge", "", "Of a deployed model, as an MPVU measured it last.", ("task",)),
    Metric("daitn_drifts_total", "counter", "", "Deployed models that had fallen behind the world.", ("task",)),
    Metric("daitn_cache_queries", "gauge", "", "Queries to a node's caches, by hit or miss.", ("node", "outcome")),
    Metric("daitn_unserved_total", "counter", "", "Classes of queries that lost their last model.", ("kas",)),
    Metric("daitn_notices_total", "counter", "", "Warnings and errors.", ("kind",)),
    Metric(
        "daitn_collector", "gauge", "", "The collector's own counters: received, malformed, dropped ...", ("counter",)
    ),
    Metric("daitn_listener_dropped", "gauge", "", "Events that a listener had no room for.", ("listener",)),
    Metric("daitn_page_streams", "gauge", "", "Open event streams of the page.", ()),
)


class Metrics:
    """All metrics of one run, on a registry of its own unless one is passed in.  ``apply`` is a listener of the hub."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._metrics = {metric.name: self._make(metric) for metric in METRICS}
        self._values: dict[tuple[str, str], set[str]] = {}
        self._agents: dict[str, str] = {}

    def apply(self, event: Event) -> None:
        """Count one event; odd data counts as the event alone."""
        self.count("daitn_events_total", kind=event.kind)
        observe = OBSERVERS.get(event.kind)
        if observe is not None:
            observe(self, event.data)

    def count(self, name: str, by: float = 1.0, /, **labels: str) -> None:
        """Add to a counter."""
        counter = self._child(name, labels)
        if isinstance(counter, Counter):
            counter.inc(max(0.0, by))

    def set(self, name: str, value: float | None, /, **labels: str) -> None:
        """Set a gauge (``None``: leave it)."""
        gauge = self._child(name, labels)
        if value is not None and isinstance(gauge, Gauge):
            gauge.set(value)

    def observe(self, name: str, value: float | None, /, **labels: str) -> None:
        """Add an observation to a histogram (``None``: nothing)."""
        histogram = self._child(name, labels)
        if value is not None and isinstance(histogram, Histogram):
            histogram.observe(value)

    def agent(self, name: str, role: str) -> None:
        """Note that an agent is ready (role "": it is gone) and set the gauges anew."""
        was = self._agents.pop(name, role)
        if role:
            self._agents[name] = role
        for changed in {was, role} - {""}:
            self.set("daitn_agents_ready", sum(r == changed for r in self._agents.values()), role=changed)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry)
        made = Counter if metric.kind == "counter" else Gauge
        return made(metric.name, metric.help, metric.labels, registry=self.registry)

    def _child(self, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        bounded = {label: self._bounded(name, label, value[:80]) for label, value in labels.items()}
        return self._metrics[name].labels(**bounded) if bounded else self._metrics[name]

    def _bounded(self, name: str, label: str, value: str) -> str:
        values = self._values.setdefault((name, label), set())
        if value not in values and len(values) >= MAX_LABEL_VALUES:
            return "other"
        values.add(value)
        return value


def told(data: Data) -> float:
    """Return how many an event tells of: the one that it names, or those that were too many to name."""
    return number(data, "more") or 1.0


def known(data: Data) -> str:
    """Return the reason of a refusal; free text (why something is not steered) is counted as ``steering``."""
    reason = text(data, "reason")
    return reason if reason in WORDS else "steering"


def _dropped(metrics: Metrics, data: Data) -> None:
    for reason, frames in figures(data, "reasons").items():
        metrics.count("daitn_frames_dropped_total", frames, reason=reason if reason in WORDS else "steering")


def _arrived(metrics: Metrics, data: Data) -> None:
    node = text(data, "node")
    metrics.count("daitn_objects_arrived_total", node=node)
    metrics.count("daitn_object_bytes_total", number(data, "bytes") or 0.0, node=node)
    metrics.observe("daitn_object_transfer_seconds", number(data, "seconds"))
    metrics.observe("daitn_object_goodput_mbps", number(data, "goodput_mbps"))


def _verified(metrics: Metrics, data: Data) -> None:
    metrics.count("daitn_visits_total", action="verify")
    for measure in ("broad", "expert"):
        metrics.set("daitn_job_accuracy_ratio", number(data, measure), job=identity(data), measure=measure)
    for group, share in figures(data, "per_group").items():
        metrics.set("daitn_job_accuracy_ratio", share, job=identity(data), measure=f"group:{group}")


def _trained(metrics: Metrics, data: Data) -> None:
    metrics.count("daitn_visits_total", action="train")
    metrics.observe("daitn_visit_train_seconds", number(data, "seconds"))


def _load(metrics: Metrics, data: Data) -> None:
    for direction in ("tx", "rx"):
        about = {"link": text(data, "link"), "direction": direction}
        metrics.set("daitn_link_bytes", number(data, f"{direction}_bytes"), **about)
        metrics.set("daitn_link_rate_mbps", number(data, f"{direction}_mbps"), **about)


def _answered(metrics: Metrics, data: Data) -> None:
    latency_ms = number(data, "latency_ms")
    metrics.observe("daitn_query_latency_seconds", None if latency_ms is None else latency_ms * MILLISECONDS_TO_S)
    known = bool(text(data, "expected"))
    right = text(data, "answer") == text(data, "expected")
    metrics.count("daitn_queries_total", right=("yes" if right else "no") if known else "unknown")


def _load_second(metrics: Metrics, data: Data) -> None:
    for outcome in ("asked", "answered", "refused", "lost"):
        metrics.count("daitn_load_queries_total", whole(data, outcome), outcome=outcome)
    metrics.set("daitn_load_under_way", number(data, "under_way"), asker=text(data, "node"))
    left = MAX_OBSERVED
    for bound_ms, count in buckets(data, "latency_buckets").items():
        for _ in range(min(left, count)):
            metrics.observe("daitn_load_latency_seconds", bound_ms * MILLISECONDS_TO_S)
        left -= min(left, count)


def _map(metrics: Metrics, data: Data) -> None:
    models = mapping(data, "attributes").get("models")
    caches = [m for m in models if isinstance(m, dict) and "hits" in m] if isinstance(models, list) else []
    for outcome, key in (("hit", "hits"), ("miss", "misses")) if caches else ():
        total = sum(number(m, key) or 0.0 for m in caches)
        metrics.set("daitn_cache_queries", total, node=text(data, "name"), outcome=outcome)


def _phase(metrics: Metrics, data: Data) -> None:
    metrics.set("daitn_phase_seconds", number(data, "seconds"), phase=text(data, "phase"))


def _assessed(metrics: Metrics, data: Data) -> None:
    metrics.count("daitn_jobs_total", state="admitted" if data.get("admitted") is True else "rejected")


def _remeasured(metrics: Metrics, data: Data) -> None:
    metrics.set("daitn_deployed_accuracy", number(data, "broad"), task=text(data, "task"))


def _drifted(metrics: Metrics, data: Data) -> None:
    _remeasured(metrics, data)
    metrics.count("daitn_drifts_total", task=text(data, "task"))


OBSERVERS: dict[str, Callable[[Metrics, Data], None]] = {
    "agent.ready": lambda m, d: m.agent(text(d, "name"), text(d, "role", "host")),
    "agent.gone": lambda m, d: m.agent(text(d, "name"), ""),
    "dcc.ready": lambda m, d: m.set("daitn_dcc_ready", 1.0, kas=text(d, "kas")),
    "run.phase": _phase,
    "packet.in": lambda m, d: m.count("daitn_packet_ins_total", kas=text(d, "kas")),
    "switch.refused": lambda m, d: m.count("daitn_switches_refused_total", whole(d, "count"), kas=text(d, "kas")),
    "packet.refused": lambda m, d: m.count("daitn_packets_refused_total", told(d), reason=known(d)),
    "frame.dropped": _dropped,
    "terminal.revoked": lambda m, d: m.set("daitn_terminals_revoked", 1.0, node=text(d, "name")),
    "terminal.restored": lambda m, d: m.set("daitn_terminals_revoked", 0.0, node=text(d, "name")),
    "object.steered": lambda m, d: m.count("daitn_flows_installed_total", whole(d, "flows"), kas=text(d, "kas")),
    "object.arrived": _arrived,
    "object.delivered": lambda m, d: m.count("daitn_retransmissions_total", whole(d, "retransmissions")),
    "visit.trained": _trained,
    "visit.verified": _verified,
    "job.assessed": _assessed,
    "job.finished": lambda m, d: m.count("daitn_jobs_total", state=text(d, "state", "finished")),
    "link.load": _load,
    "query.answered": _answered,
    "load.second": _load_second,
    "krrm.updated": _map,
    "load.over": lambda m, d: m.set("daitn_load_under_way", 0.0, asker=text(d, "node")),
    "query.unserved": lambda m, d: m.count("daitn_unserved_total", kas=text(d, "kas")),
    "model.out": lambda m, d: m.set("daitn_models_out", 1.0, node=text(d, "node")),
    "model.back": lambda m, d: m.set("daitn_models_out", 0.0, node=text(d, "node")),
    "model.remeasured": _remeasured,
    "model.drifted": _drifted,
    "model.redeployed": _remeasured,
    "engine.failed": lambda m, d: m.count("daitn_engine_failures_total", engine=text(d, "engine")),
    "warning": lambda m, d: m.count("daitn_notices_total", kind="warning"),
    "error": lambda m, d: m.count("daitn_notices_total", kind="error"),
}


def metrics_table() -> str:
    """Return the documentation of all metrics as a Markdown table."""
    rows = ["| metric | kind | unit | labels | help |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"
