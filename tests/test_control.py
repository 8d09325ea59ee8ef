"""`imds-proxy watch`: a line for each change, a program run for each. `reload`: in server/test_reload.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imds_proxy.emulator.service import Emulator
from proxy import running_proxy

SPOT = "meta-data/instance/spot/termination-time"


def watch(config: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "imds_proxy", "watch", *words, "--socket", str(config.parent / "admin.sock")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_each_change_is_a_line_and_runs_the_program(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = f'echo "$IMDS_STATUS $IMDS_PATH $IMDS_VALUE" >> {seen}'
    with Emulator() as service, running_proxy(service.address, {"cache": {"volatile": "1s"}}) as proxy:
        with watch(proxy.config, SPOT, "--exec", program) as process:
            assert process.stderr and process.stdout
            assert process.stderr.readline() == "now: (absent)\n"
            service.patch(spot_termination="2026-01-01T00:00:00Z")
            assert process.stdout.readline() == "2026-01-01T00:00:00Z\n"
            service.patch(spot_termination=None)
            assert process.stdout.readline() == "(absent)\n"
            soon(lambda: seen.exists() and seen.read_text().count("\n") == 2)
            process.send_signal(signal.SIGINT)
        assert process.returncode == 1
    assert seen.read_text() == f"200 {SPOT} 2026-01-01T00:00:00Z\n404 {SPOT} \n"


def test_a_value_is_text_for_a_terminal_and_never_its_master() -> None:
    with Emulator() as service, running_proxy(service.address, {"cache": {"volatile": "1s"}}) as proxy:
        process = watch(proxy.config, SPOT, "--once")
        assert process.stderr and process.stdout
        process.stderr.readline()
        service.patch(spot_termination="a\x1b[2Jb\r\nc")
        assert process.communicate(timeout=10)[0] == "a\\x1b[2Jb\nc\n"
        assert process.returncode == 0


def test_a_daemon_that_restarts_is_waited_for(tmp_path: Path) -> None:
    sock = tmp_path / "own.sock"
    settings = {"cache": {"volatile": "1s"}, "admin": {"socket": str(sock)}}
    words = [sys.executable, "-m", "imds_proxy", "watch", SPOT, "--once", "--socket", str(sock)]
    with Emulator() as service:
        with running_proxy(service.address, settings):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert process.stderr
            process.stderr.readline()
        service.patch(spot_termination="soon")
        with running_proxy(service.address, settings):
            assert process.communicate(timeout=20)[0] == "soon\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["meta-data/ram/security-credentials/demo-role"], "is secret or of one use"),
        (["a%2fb"], "is the path of an item"),
    ],
)
def test_what_cannot_be_watched_is_said(words: list[str], said: str) -> None:
    with Emulator() as service, running_proxy(service.address) as proxy:
        process = watch(proxy.config, *words)
        assert said in process.communicate(timeout=10)[1]
        assert process.returncode == 1


def test_without_a_daemon_there_is_an_error(tmp_path: Path) -> None:
    process = watch(tmp_path / "config.yaml", SPOT)
    assert "no daemon answers there" in process.communicate(timeout=10)[1]
    assert process.returncode == 1
