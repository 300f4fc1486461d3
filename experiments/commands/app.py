"""The command line's root: where its commands hang, where they print, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from rich.markup import escape

from experiments.commands.words import make_console
from experiments.scenarios.built_in import names

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="DA-ITN testbed: models, data and queries that travel, and a network that decides where they meet.",
)
out = make_console()
err = make_console(stderr=True)


def command_line(app: typer.Typer) -> Any:
    """Return the commands as they are run: help is shown as it is written, square brackets are no markup in it."""
    root = typer.main.get_command(app)
    for command in getattr(root, "commands", {}).values():
        command.help = escape(command.help or "")
        for parameter in command.params:
            parameter.help = escape(getattr(parameter, "help", None) or "")
    return root


ScenarioArgument = Annotated[
    str, typer.Argument(help=f"Built-in scenario ({', '.join(names())}) or path of a YAML file.")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of data, models and plans.", min=0)]
DataOption = Annotated[
    Path | None, typer.Option(help="Real data: a directory (UCI heart disease) or a CSV/JSONL file.")
]
LabelOption = Annotated[str | None, typer.Option(help="Label column of --data FILE.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(help="Column of --data FILE to learn from; may be given several times [default: all, or its texts]."),
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="A learning task of your own: file.py:Class, a subclass of hosts.learning.task.Task."),
]
PageOption = Annotated[
    int | None,
    typer.Option(help="Port of the status page on 127.0.0.1 [default: 8080, or a free one].", min=0, max=65535),
]
NoPageOption = Annotated[bool, typer.Option("--no-page", help="Serve no status page.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Folder of a run [default: the standing network's, else runs/latest].")
]
JobOption = Annotated[str | None, typer.Option(help="Job, by the beginning of its number, or `last`.")]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Folder for the results [default: runs/<date>-<scenario>-s<seed>].")
]
TopoOption = Annotated[
    str | None,
    typer.Option("--topo", help="Another network: file.py:Class, a subclass of topologies.own.topo.Topo."),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option("--engine", help="An engine of your own, ENGINE=SOURCE: mtrce=mine.py:plan; see `daitn engines`."),
]
JobsOption = Annotated[
    int,
    typer.Option(
        help="So many runs at a time, each on a network of its own; 1 to 2 GiB each. Accuracy and routes are those of "
        "one after the other; seconds are not.",
        min=1, max=64,
    ),
]  # fmt: skip
