"""What a run in a sandbox has of this machine: the socket of its page, and a folder that no other has."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from controller.oam.page import PageServer, create_app, listen
from controller.oam.state.run import NetworkState
from experiments.testbed.apart import PAGE_VARIABLE, inherited_page
from experiments.testbed.folder import RunFolder
from experiments.testbed.processes import PROJECT

GO = """
import sys
from experiments.testbed import apart
apart.sandboxed = lambda words, orphaned: [sys.executable, "-c", sys.argv[2], *words]
apart.go_apart(["run", "heart", "--sandbox", "--seeds", "2"], int(sys.argv[1]))
"""
ARRIVED = """
import sys
from experiments.testbed.apart import inherited_page
port, listener = inherited_page(None)
print(sys.argv[3:], port == listener.getsockname()[1], listener.get_inheritable(), inherited_page(7))
"""


def test_the_same_command_is_carried_out_again_and_the_page_is_handed_down() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GO, "0", ARRIVED], env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True,
        text=True, timeout=15,
    )  # fmt: skip
    assert done.stdout == "['experiments.cli', 'run', 'heart', '--seeds', '2'] True False (7, None)\n", done.stderr


def test_a_page_is_served_from_a_socket_that_listens_already(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = listen("127.0.0.1", 0)
    there: int = outside.getsockname()[1]
    monkeypatch.setenv(PAGE_VARIABLE, str(outside.detach()))
    port, listener = inherited_page(8080)
    assert port == there and isinstance(listener, socket.socket)
    with PageServer(create_app(NetworkState()), port=port, listener=listener) as server:
        assert server.port == there
        assert urllib.request.urlopen(server.url, timeout=5).status == 200


def test_two_runs_that_begin_in_the_same_second_have_a_folder_each(tmp_path: Path) -> None:
    folders = {RunFolder.create(tmp_path, "heart", 0).path for _ in range(5)}
    assert len(folders) == 5
    for folder in folders:
        RunFolder(folder, tmp_path / "latest").publish()
    assert (tmp_path / "latest").resolve() in folders
    assert len(list(tmp_path.iterdir())) == 6
