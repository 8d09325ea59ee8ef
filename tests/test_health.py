"""The probe of containers: alive is who answers, not who merely holds a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imds_proxy import health
from imds_proxy.health import alive
from proxy import running_proxy


def test_a_running_daemon_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with running_proxy(("127.0.0.1", 9), {"admin": {"socket": str(path)}}):
        done = subprocess.run(
            [sys.executable, "-m", "imds_proxy.health", str(path)], capture_output=True, text=True, timeout=30
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_daemon_that_is_gone_is_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imds_proxy.health", str(tmp_path / "admin.sock")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("No such file or directory\n")


def test_a_daemon_whose_event_loop_hangs_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.1)
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert alive(str(path)) == f"{path}: no answer: timed out"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_without_its_powers_asks_a_daemon_of_another_user(tmp_path: Path) -> None:
    """As in a pod: the probe runs as root with CAP_SETUID and CAP_SETGID, the daemon as its reserved user."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        os.chown(path, 64200, 64200)
        listener.settimeout(30)
        listener.listen()
        words = ["setpriv", "--bounding-set=-all,+setuid,+setgid", sys.executable, "-m", "imds_proxy.health"]
        probe = subprocess.Popen([*words, str(path)])
        wire, _ = listener.accept()
        with wire:
            assert wire.recv(100) == b'{"command": "ping"}\n'
            wire.sendall(b"{}\n")
        assert probe.wait(30) == 0
