"""Reference pages that the code writes about itself: the command line, the metrics, the scenario's JSON schema.

``python -m experiments.commands.reference`` (``make docs``) writes them anew into ``docs/``; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

import experiments.cli  # noqa: F401  hangs every command on the app
from controller.oam.metrics import metrics_table
from experiments.commands.app import app
from experiments.scenarios.schema import schema_text
from packets.security.reasons import reasons_table

DOCS = Path(__file__).parents[2] / "docs"


def cli_text() -> str:
    """Return every command with its arguments and options as Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="daitn", help_option_names=["-h", "--help"])
    told = get_docs_for_click(obj=command, ctx=context, name="daitn").rstrip()
    return "\n".join(line.rstrip() for line in told.splitlines()) + "\n"


def metrics_text() -> str:
    """Return every metric of the status page's ``/metrics``, and every reason of refusal, as Markdown."""
    counted = "# Metrics\n\nThe status page serves these at `/metrics`, for Prometheus."
    reasons = (
        "## Reasons\n\nLabel `reason`: why a frame, packet or request is refused. A switch's are read from its rules."
    )
    return f"{counted}\n\n{metrics_table()}\n{reasons}\n\n{reasons_table()}"


PAGES: dict[str, Callable[[], str]] = {
    "scenario.schema.json": schema_text,
    "cli.md": cli_text,
    "metrics.md": metrics_text,
}


def write(folder: Path) -> list[Path]:
    """Write all reference pages into ``folder``; return those that changed."""
    changed = []
    for name, text in PAGES.items():
        file, new = folder / name, text()
        if not file.exists() or file.read_text() != new:
            file.write_text(new)
            changed.append(file)
    return changed


if __name__ == "__main__":
    for file in write(DOCS):
        print(f"docs/{file.name}")
