"""As in a pod: who has CAP_NET_ADMIN puts the redirect up and ends; who has not serves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud import Lab
from imds_proxy.demo.processes import announced, ending

_UID = 64646


@pytest.fixture
def directory() -> Iterator[Path]:
    """For all to read, as pytest's own are not; in `own` the sidecar's user may write."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary)
        path.chmod(0o755)
        own = path / "own"
        own.mkdir()
        os.chown(own, _UID, _UID)
        yield path


@contextmanager
def sidecar(lab: Lab, config: Path) -> Iterator[subprocess.Popen[str]]:
    """The daemon as a user of its own with no capability but those that name callers."""
    kept = "+sys_ptrace,+dac_read_search"
    words = (
        *("setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"),
        *(f"--inh-caps=-all,{kept}", f"--ambient-caps=-all,{kept}", f"--bounding-set=-all,{kept}"),
        *(sys.executable, "-m", "imds_proxy", "run", "--intercept", "-c", str(config)),
    )
    with (config.parent / "log").open("w") as log:
        process = subprocess.Popen(lab.host.words(*words), stdout=subprocess.PIPE, stderr=log, text=True)
    with ending(process):
        yield process


def configuration(directory: Path) -> Path:
    path = directory / "config.yaml"
    path.write_text(
        f"listen: ['127.0.0.1:0']\nstate: {directory}/own\nadmin: {{socket: {directory}/own/admin.sock}}\n"
        # No right to a port below 1024, and none needed: nothing else in a pod listens there.
        "intercept: {on_failure: closed, exempt_uid: 64646, address: ['169.254.100.200:20200']}\n"
    )
    return path


def test_the_init_container_redirects_and_the_sidecar_serves(lab: Lab, directory: Path) -> None:
    before = lab.host.everything()
    config = configuration(directory)
    command = (sys.executable, "-m", "imds_proxy", "intercept")
    assert lab.host.client(*command, "up", "-c", str(config)).returncode == 0
    assert lab.get().exit_code == 7  # until the sidecar serves, and whenever it does not
    with sidecar(lab, config) as process:
        announced(process)
        assert lab.get().status == 200  # its own calls are let through, since they are its user's
        status = lab.host.client(*command, "status", "-c", str(config))
        assert status.returncode == 0
        assert "put up by another process" in status.stdout
        process.kill()
        process.wait()
    assert lab.get().exit_code == 7
    with sidecar(lab, config) as process:
        announced(process)
        assert lab.get().status == 200
    assert lab.host.client(*command, "down", "-c", str(config)).returncode == 0
    assert lab.host.everything() == before


def test_without_an_init_container_it_says_what_is_missing(lab: Lab, directory: Path) -> None:
    config = configuration(directory)
    with sidecar(lab, config) as process:
        assert process.wait(20) == 1
    said = (directory / "log").read_text()
    assert "lo cannot be given an address; it needs CAP_NET_ADMIN" in said
