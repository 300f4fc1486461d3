"""``daitn``: the testbed's command line. Every command is one line of help, one screen of output, one exit status.

Exit status: 0 done, 1 the work did not reach its goal, 2 bad input or a machine that is not ready, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import signal
import sys

import typer
from typer.exceptions import TyperException

from controller.errors import PluginError
from controller.oam.errors import OamError
from experiments.commands import running  # noqa: F401  the commands, in the order in which help lists them

from experiments.commands import standing  # noqa: F401  isort: skip
from experiments.commands.asking import commands  # noqa: F401  isort: skip
from experiments.commands import looking  # noqa: F401  isort: skip
from experiments.chaos import command  # noqa: F401  isort: skip
from experiments.commands import certificates  # noqa: F401  isort: skip
from experiments.commands.app import app, command_line, err
from experiments.commands.words import shown
from experiments.errors import ExperimentError, RunFailed
from experiments.testbed.processes import ENDINGS, end_in_order
from hosts.learning.errors import LearningError
from packets.errors import IdentityError
from topologies.errors import TopologyError
from topologies.machine.shell import find_tools

INTERRUPTED = 130


def main() -> None:
    """Entry point: errors a person can act on become one line and an exit status."""
    end_in_order()
    find_tools()
    status = 0
    try:
        status = command_line(app)(standalone_mode=False)
    except (ExperimentError, TopologyError, LearningError, OamError, IdentityError, PluginError) as error:
        _fail(error, 2)
    except RunFailed as error:
        _fail(error, 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(RunFailed(f"disk full: {error.filename or 'a file'} could not be written; free some space"), 1)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except TyperException as error:  # a wrong flag, a missing argument
        said = getattr(error, "format_message", error.__str__)()
        if not said:  # `daitn` alone: the help has been shown
            sys.exit(2)
        _fail(ExperimentError(f"{said.rstrip('.')}; see `daitn --help` or `daitn COMMAND --help`"), 2)
    if status == INTERRUPTED:  # typer's own word for Ctrl-C, too
        for number in ENDINGS:  # who presses twice gets no other end
            signal.signal(number, signal.SIG_IGN)
        made_something = {"run", "up", "chaos"} & set(sys.argv[1:2])
        waited = "submit" in sys.argv[1:2]
        goes_on = "no longer waiting; the job goes on: `daitn status` shows it, `daitn stop JOB` ends it"
        err.print("stopped; everything is torn down" if made_something else goes_on if waited else "stopped")
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: Exception, status: int) -> None:
    err.print(f"[red]error:[/] {shown(' '.join(str(error).split()))}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
