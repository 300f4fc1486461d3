"""``daitn run --sandbox``: the same command once more, on a machine of its own on this one; its page stays here."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from controller.oam.page import listen
from topologies.sandbox.sandbox import environment, sandboxed

PAGE_VARIABLE = "DAITN_PAGE_FD"  # of a socket that listens outside, where people look


def go_apart(arguments: Sequence[str], port: int | None) -> None:
    """Become the sandbox that carries the same command out; does not return."""
    variables = environment()
    if port is not None:
        descriptor = listen("127.0.0.1", port).detach()
        os.set_inheritable(descriptor, True)
        variables[PAGE_VARIABLE] = str(descriptor)
    words = [sys.executable, "-m", "experiments.cli", *(word for word in arguments if word != "--sandbox")]
    sys.stdout.flush()
    os.execve(sys.executable, sandboxed(words, orphaned=True), variables)


def inherited_page(port: int | None) -> tuple[int | None, socket.socket | None]:
    """Return the page's port, and the socket that listens there already where one was handed down."""
    descriptor = os.environ.pop(PAGE_VARIABLE, "")
    if not descriptor:
        return port, None
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    return int(listener.getsockname()[1]), listener
