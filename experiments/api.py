"""The testbed from Python, in a script or a notebook:

    from experiments import Testbed

    with Testbed("healthcare", seed=1) as bed:
        job = bed.submit(broad_accuracy=0.8, expert_group="cardiology", expert_accuracy=0.95)
        print(job.visits, bed.query("cardiology"))

Needs root, as Mininet does. Errors are exceptions (``ExperimentError``: what you gave, ``RunFailed``: what happened);
leaving the block, also by an exception, takes everything down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from experiments.errors import ExperimentError

if TYPE_CHECKING:
    import pandas

    from experiments.scenarios.scenario import Scenario
    from experiments.streams import RunningStream
    from packets.events import Event
    from topologies.network import Network


class Job:
    """What came of one job. ``result``: all of it, as a report has it."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result

    @property
    def targets_met(self) -> bool:
        """Whether the model came home with both targets confirmed."""
        return bool(self.result["targets_met"])

    @property
    def accuracy(self) -> dict[str, float | None]:
        """``broad`` and ``expert``, shares of 1, on the samples of every MPVU that was asked."""
        return dict(self.result["accuracy"])

    @property
    def model(self) -> Path | None:
        """The folder of the trained model (safetensors) and its log; None for a job that was rejected."""
        return Path(self.result["model"]) if self.result["model"] else None

    @property
    def visits(self) -> pandas.DataFrame:
        """One row a training visit: where, on how many samples, what an MPVU measured after it."""
        return _frame(self.result["route"])

    @property
    def journey(self) -> pandas.DataFrame:
        """One row a leg of the model's journey, MPVUs and the way home included."""
        return _frame(self.result["journey"])


class Testbed:
    """A scenario's network, standing from ``with`` on.

    ``scenario``: a name, a YAML file, or a ``Scenario``; ``topo``: another network, ``task``:
    a learning task, ``method``: what jobs call ``own``, all ``file.py:Class``; ``engines``: {engine: source};
    ``results``: the run's folder; ``page``: whether to serve the status page.
    """

    __test__ = False  # not for pytest

    def __init__(
        self,
        scenario: str | Scenario = "healthcare",
        *,
        seed: int | None = None,
        topo: str | None = None,
        task: str | None = None,
        method: str | None = None,
        engines: Mapping[str, str] | None = None,
        data: Path | None = None,
        label: str | None = None,
        columns: Sequence[str] = (),
        results: Path | None = None,
        page: bool = False,
        capture: bool = True,
    ) -> None:
        from experiments.commands.engines import check_engines
        from experiments.commands.resolving import resolve

        words = [f"{name}={source}" for name, source in (engines or {}).items()]
        self.scenario = resolve(
            scenario, seed=seed, data=data, label=label, columns=columns, engines=words, topo=topo, task=task,
            method=method,
        )  # fmt: skip
        check_engines(self.scenario)
        self._results, self._page, self._capture = results, page, capture
        self._cleanup = contextlib.ExitStack()
        self._bed: Any = None
        self._loads = 0

    def __enter__(self) -> Testbed:
        from experiments.commands.session import RUNS, choose_page_port, need_root
        from experiments.run import Run, gather
        from experiments.testbed.folder import RunFolder
        from experiments.testbed.testbed import Bed

        need_root()
        folder = RunFolder.create(RUNS, self.scenario.name, self.scenario.seed, self._results)
        port = choose_page_port(None, no_page=not self._page)
        with contextlib.ExitStack() as stack:
            bed = stack.enter_context(Bed(self.scenario, folder, page_port=port, capture=self._capture))
            folder.write_manifest(seed=self.scenario.seed, run_id=bed.run_id)
            Run(bed).bring_up(self.scenario.seed)
            if bed.terminals("mpvu"):
                gather(bed)
            self._cleanup, self._bed = stack.pop_all(), bed
        return self

    def __exit__(self, *_: object) -> None:
        self._bed = None
        self._cleanup.close()

    @property
    def bed(self) -> Any:
        """The standing testbed underneath (``experiments.testbed.testbed.Bed``); ``ExperimentError`` when none is."""
        if self._bed is None:
            raise ExperimentError("the network does not stand: use it inside `with Testbed(...) as bed:`")
        return self._bed

    @property
    def net(self) -> Network:
        """The network as Mininet knows it: ``bed.net["h11"].cmd("ping -c1 10.2.1.1")``."""
        return self.bed.network  # type: ignore[no-any-return]

    @property
    def folder(self) -> Path:
        """Where the run's events, capture, logs and models are."""
        return Path(self.bed.folder.path)

    def submit(self, owner: str = "", **wanted: Any) -> Job:
        """Submit a job (fields of ``packets.messages.JobSpec``; what is not said is the scenario's first job's), wait
        until its model is home and deployed.
        """
        from experiments.job import run_job
        from experiments.run import check_method

        base = self.scenario.jobs[0]
        said = {"seed": self.scenario.seed} | wanted
        if strange := sorted(set(said) - set(base.__struct_fields__)):
            raise ExperimentError(f"a job has no {strange[0]!r}; it has: {', '.join(base.__struct_fields__)}")
        job = msgspec.convert(msgspec.to_builtins(base) | said, type(base))
        check_method(job.method, self.scenario.data.method)
        return Job(run_job(self.bed, job, owner))

    def query(
        self, group: str = "", *, text: str = "", way: str = "", aats: bool = False, **need: Any
    ) -> dict[str, Any]:  # fmt: skip
        """Put one question (a sample of a group, or a text) to whichever deployed model the network steers it to.

        ``way``: a way of inference, one of the scenario's; ``aats``: the asker finds the model itself; ``need``: fields
        of ``packets.queries.Need``, as ``broad_accuracy=0.8``.
        """
        from experiments.run import query

        return query(self.bed, self.scenario.data.name, group, text, need=need, way=way, aats=aats)

    def stream(self, group: str = "", count: int = 40, way: str = "", **need: Any) -> RunningStream:
        """Put one query of many samples; iterate for its answers, in order as they come (``figures``: what came of it).

        ``way``, ``need``: as of ``query``.
        """
        from experiments.streams import RunningStream

        return RunningStream(self.bed, group, count, need=need, way=way)

    def load(self, *, seed: int = 0, **wanted: Any) -> dict[str, Any]:
        """Have all query owners ask together (fields of ``experiments.scenarios.queries.QueriesSpec``); return what
        came of it once it is over.
        """
        from experiments.load import run_load
        from experiments.scenarios.queries import QueriesSpec

        try:
            spec = msgspec.convert(wanted, QueriesSpec)
        except msgspec.ValidationError as error:
            raise ExperimentError(f"load: {error}") from None
        self._loads += 1
        return run_load(self.bed, spec, seed, self.folder / f"load-{self._loads}.csv", lambda second: None)

    @property
    def events(self) -> list[Event]:
        """Every event so far, in order."""
        return list(self.bed.events)

    def frame(self, kind: str) -> pandas.DataFrame:
        """Return the events of a kind as a table: one row an event, a column each of its fields, ``t_unix_s`` first."""
        return _frame([{"t_unix_s": e.t_unix_s} | e.data for e in self.events if e.kind == kind])

    @property
    def map(self) -> pandas.DataFrame:
        """What the control centres know of each terminal (G-KRRM): one row a terminal, a column an attribute."""
        from experiments.commands.netmap import whole_map

        terminals = whole_map(self.folder)["terminals"]
        rows = [
            {k: t[k] for k in ("name", "role", "kas", "heard_s_ago")}
            | {a: held.get("value") for a, held in t["attributes"].items()}
            for t in terminals
        ]
        return _frame(rows)


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas  # takes its time: only for who wants tables

    return pandas.DataFrame(rows)
