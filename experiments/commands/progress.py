"""What a person sees of a run: a line for each thing done, a moving one for what is going on, figures at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from experiments.commands.asking.told import answer_in_words, load_table, second_in_words
from experiments.commands.asking.told import summary as load_summary
from experiments.commands.explain import borrowed
from experiments.commands.words import shown
from experiments.report.happened import WORDS
from experiments.scenarios.kinds import summary as kinds_summary
from packets.events import Event

PHASES = {
    "network": "switches, links, terminals, control centres",
    "calibrate": "links, configured against measured",
    "agents": "one at every terminal, PyTorch ready",
    "gather": "test samples to the MPVUs",
    "submit": "the request to T-FAM",
    "train": "the model travels",
    "deploy": "deployment to an MDFP",
    "ways": "other ways of inference beside it",
    "query": "one query through the network",
    "queries": "all query owners ask",
    "pooled": "pooled training, for comparison",
    "report": "report, plots, capture",
}


class Progress:
    """Listener of the event stream; prints plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trained = self._expert = self._mean = self._phase = ""
        self._visits = 0
        self._closed = False
        self._status: Status | None = console.status("starting") if console.is_terminal else None
        if self._status:
            self._status.start()

    def __call__(self, event: Event) -> None:
        if self._closed:
            return
        if event.kind in WORDS:
            self._happened(event.kind, event.data)
        handler = getattr(self, "_on_" + event.kind.replace(".", "_"), None)
        if handler is not None:
            handler(event.data)

    def close(self) -> None:
        """Say no more: what ends during teardown is no news."""
        self._closed = True
        if self._status:
            self._status.stop()

    def _now(self, text: str) -> None:
        if self._status:
            self._status.update(escape(text))

    def _line(self, mark: str, text: str) -> None:
        self._console.print(f"{mark} {text}", highlight=False, soft_wrap=True)

    def _on_run_phase(self, data: dict[str, Any]) -> None:
        text = PHASES.get(data["phase"], data["phase"])
        self._phase = data["phase"] if data["state"] == "start" else ""
        if data["state"] == "start":
            self._now(f"{data['phase']}: {text}")
        else:
            self._line("[green]✓[/]", f"{data['phase']:<10} {text} [dim]{data['seconds']:.1f} s[/]")

    def _on_job_submitted(self, data: dict[str, Any]) -> None:
        self._visits, self._mean = 0, ""
        self._expert = shown(data.get("spec", {}).get("expert_group") or "")

    def _on_job_assessed(self, data: dict[str, Any]) -> None:
        if data["admitted"]:
            predicted = data.get("predicted", {})
            shown = ", ".join(f"{k} {predicted[k]:.2f}" for k in ("broad", "expert") if k in predicted)
            by = borrowed(data.get("by"), "T-FAM")
            self._line("[green]✓[/]", f"T-FAM      admitted{by} [dim]predicted {shown}[/]")
            return
        say_rejected(data, self._console)

    def _on_job_decided(self, data: dict[str, Any]) -> None:
        number = self._visits + (data["action"] == "train")  # of training visits, as in the lines that stay
        self._now(f"visit {number}: {data['action']} in K-AS {data['kas']}: {data.get('reason', '')}")

    def _on_object_arrived(self, data: dict[str, Any]) -> None:
        if data.get("goodput_mbps"):
            size = f"{data['bytes'] / 1e6:.1f} MB" if data["bytes"] >= 1e6 else f"{data['bytes'] / 1e3:.0f} kB"
            self._now(f"{size} at {data['node']}, {data['goodput_mbps']:.1f} Mbit/s")

    def _on_visit_trained(self, data: dict[str, Any]) -> None:
        self._visits += 1
        where = "" if data["facility"] == data["data_node"] else f" at {data['facility']}"
        self._trained = f"{data['data_node']}{where} [dim](K-AS {data['kas']})[/]"
        self._now(f"trained on {data['samples']} samples of {data['data_node']}: loss {data['loss']:.3f}")

    def _on_job_reached(self, data: dict[str, Any]) -> None:
        expert = f" / {data['expert']:.3f}" if self._expert else ""
        self._mean = f"; mean of all who measured it {data['broad']:.3f}{expert}"

    def _on_visit_verified(self, data: dict[str, Any]) -> None:
        mark = "[green]✓[/]" if data["accepted"] else "[yellow]↺[/]"
        expert = f" {self._expert} {data['expert']:.3f}" if self._expert else ""
        trained, self._trained = self._trained, ""
        name = f"visit {self._visits:<4}" if trained else "confirm   "
        where = f"{trained}, verified by {data['node']}" if trained else f"by {data['node']}{self._mean}"
        self._mean = ""
        self._line(
            mark,
            f"{name} broad {data['broad']:.3f}{expert}  {where}"
            + ("" if data.get("share", 1) == 1 or not data["accepted"] else f" [dim]{data['share']:.0%} of it kept[/]")
            + ("" if data["accepted"] else " [yellow]rolled back[/]"),
        )

    def _on_query_answered(self, data: dict[str, Any]) -> None:
        if self._phase in ("queries", "ways"):  # the ones that go before a load, or see whether a way is there
            return
        mark = "[green]✓[/]" if data["expected"] in ("", data["answer"]) else "[yellow]✗[/]"
        self._line(
            mark,
            f"query      {shown(data['answer'])} [dim]by {data['answered_by']} in {data['latency_ms']:.0f} ms[/]",
        )

    def _on_way_deployed(self, data: dict[str, Any]) -> None:
        places = ", ".join(f"{m['variant']} at {m['node']}" for m in data["models"])
        self._line("[green]✓[/]", f"way        {escape(places)}")

    def _on_threshold_learned(self, data: dict[str, Any]) -> None:
        said = f"the cheap model answers {1 - data['sent_on']:.0%} of {data['samples']} test samples"
        self._line("[green]✓[/]", f"learned    {said}: {data['broad']:.3f} right, the large one {data['large']:.3f}")

    def _on_fusion_learned(self, data: dict[str, Any]) -> None:
        said = f"findings and vitals together on {data['samples']} test samples: {data['broad']:.3f} right"
        alone = f"findings alone {data['text']:.3f}, vitals alone {data['vitals']:.3f}"
        self._line("[green]✓[/]", f"learned    {said}, {alone}")

    def _on_query_part(self, data: dict[str, Any]) -> None:
        self._console.print(answer_in_words(data), highlight=False, soft_wrap=True)

    def _on_load_progress(self, data: dict[str, Any]) -> None:
        self._console.print(second_in_words(data), highlight=False, soft_wrap=True)

    def _happened(self, kind: str, data: dict[str, Any]) -> None:
        """Say what happens to the world and to deployed models."""
        what, text = WORDS[kind]
        mark = "[yellow]![/]" if kind in ("timed.event", "model.drifted") else "[green]✓[/]"
        self._line(mark, f"{what:<10} {escape(text(data))}")

    def _on_warning(self, data: dict[str, Any]) -> None:
        self._line("[yellow]![/]", escape(str(data.get("text", data))))

    _on_engine_failed = _on_warning

    def _on_error(self, data: dict[str, Any]) -> None:
        self._line("[red]![/]", escape(str(data.get("text", data))))


def say_rejected(assessment: dict[str, Any], console: Console) -> None:
    """Print T-FAM's rejection: every reason, and the nearest requirement that would be admitted."""
    console.print("[yellow]✗[/] T-FAM      rejected", highlight=False)
    for reason in assessment["reasons"]:
        console.print(f"  - {escape(reason)}", highlight=False, soft_wrap=True)
    nearest = ", ".join(f"{k} {v:g}" for k, v in assessment.get("nearest", {}).items())
    words = (
        f"nearest requirement that would be admitted: {nearest}" if nearest else "no requirement would be admitted here"
    )
    console.print(f"  - {escape(words)}", highlight=False, soft_wrap=True)


def say_report(report: dict[str, Any], folder: Path, console: Console) -> None:
    """Print a report's figures on one screen."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key, value in _rows(report):
        table.add_row(shown(key), value)
    console.print(table)
    if queries := report.get("queries"):
        console.print(load_summary(queries), highlight=False, soft_wrap=True)
        console.print(load_table(queries))
    console.print(f"report     {folder / 'report.html'}", highlight=False, soft_wrap=True)


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    accuracy, targets = report["accuracy"], report["targets"] or {}
    met = (
        "[green]targets met[/]"
        if report["targets_met"]
        else f"[yellow]{report['state']}: targets missed[/]{report['reason'] and '; ' + shown(report['reason'])}"
    )
    yield "result", met
    if accuracy["broad"] is not None:
        yield "broad", f"{accuracy['broad']:.3f} (target {targets['broad']:.2f})"
    if accuracy["expert"] is not None and report["expert_group"]:
        yield str(report["expert_group"]), f"{accuracy['expert']:.3f} (target {targets['expert']:.2f})"
    if report["pooled_accuracy"] is not None:
        yield (
            "pooled",
            f"{report['pooled_accuracy']:.3f} (all data in one place, same command; {len(report['seeds'])} seed(s))",
        )
    if "kinds" in report:
        yield "K-AS", kinds_summary(report["kinds"]).removeprefix("K-AS ")
    yield "visits", str(len(report["route"]))
    yield (
        "on wire",
        f"{report['bytes_on_wire'] / 1e6:.1f} MB in AI frames; port counters "
        f"{report['port_counter_bytes'] / 1e6:.1f} MB",
    )
    if report["query"]:
        yield (
            "query",
            f"{shown(report['query']['answer'])}, expected {shown(report['query']['expected'])}, "
            f"{report['query']['latency_ms']:.1f} ms",
        )
    yield "wall", f"{report['wall_s']:.1f} s, peak memory {report['peak_memory_mib']:.0f} MiB"
