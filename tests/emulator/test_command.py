import argparse
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.emulator.command import add_arguments, run

PROGRAM = """
import argparse, sys
from imds_proxy.emulator.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""
PATH = "/latest/meta-data/instance-id"


class Process:
    """The command as a process, once it is ready."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []

    def address(self, word: str = "listening") -> tuple[str, int]:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        self.lines.append(line)
        match = re.fullmatch(rf"{word} on http://\[?([0-9a-f.:]+?)\]?:([0-9]+)\n", line)
        assert match, line
        return match[1], int(match[2])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.popen.send_signal(number)
        _, errors = self.popen.communicate(timeout=5)
        return self.popen.returncode, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def launch(*arguments: str) -> Process:
        started.append(Process(arguments))
        return started[-1]

    yield launch
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


def test_each_listener_and_the_control_endpoint_print_a_line_once_ready(start: Any, wire: Any) -> None:
    process = start("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--control", "127.0.0.1:0")
    addresses = [process.address(), process.address()]
    control = process.address("control")
    assert [wire(address).get(PATH).status for address in addresses] == [200, 200]
    assert wire(control).get("/state").status == 200
    assert process.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_though_an_answer_hangs(
    start: Any, wire: Any, eventually: Any, number: int
) -> None:
    process = start("--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--latency", "600000")
    address, control = process.address(), process.address("control")
    client, watcher = wire(address), wire(control)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    eventually(lambda: b'"v1_gets": 1' in watcher.get("/state").body)
    begin = time.monotonic()
    assert process.end(number) == (0, "")
    assert time.monotonic() - begin < 1
    assert client.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        wire(address)


def test_options_become_settings(start: Any, wire: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\xff\x00gzip")
    process = start(
        "--listen", "127.0.0.1:0", "--http-tokens", "required", "--no-role", "--token-ttl-max", "60",
        "--throttle", "4/s", "--throttle-status", "503", "--retry-after", "7", "--user-data",
        str(tmp_path / "data"), "--access-log",
    )  # fmt: skip
    client = wire(process.address())
    header = f"X-aliyun-ecs-metadata-token: {client.token().body.decode()}"
    assert client.get("/latest/user-data", header).body == b"\xff\x00gzip"
    assert client.get("/latest/meta-data/ram/", header).status == 404
    assert client.get(PATH).status == 403
    throttled = next(reply for reply in (client.get(PATH) for _ in range(50)) if reply.status != 403)
    assert (throttled.status, throttled.headers["retry-after"]) == (503, "7")
    code, errors = process.end()
    assert code == 0 and '"GET /latest/user-data HTTP/1.1" 200 6' in errors


def test_a_busy_port_is_one_line_and_failure(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start("--listen", f"127.0.0.1:{port}")
        output, errors = process.popen.communicate(timeout=10)
    assert (process.popen.returncode, output) == (1, "")
    assert errors == f"imds-proxy: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "8200"),
        ("--listen", "::1:8200"),
        ("--listen", "[127.0.0.1]:80"),
        ("--listen", "127.0.0.1:70000"),
        ("--listen", "localhost:80"),
        ("--throttle", "0/s"),
        ("--throttle", "many"),
        ("--throttle-status", "404"),
        ("--role", "a", "--no-role"),
        ("--http-tokens", "maybe"),
        ("--latency", "long"),
    ],
)
def test_bad_usage_exits_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_a_value_that_the_settings_refuse_is_bad_usage_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("--role", "a/b")) == 2
    assert capsys.readouterr().err.startswith("imds-proxy: role: 'a/b' is not; allowed: a role name")


def test_a_file_that_cannot_be_read_is_one_line_and_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parse("--user-data", str(tmp_path / "none"))) == 1
    assert (
        capsys.readouterr().err == f"imds-proxy: cannot read {tmp_path / 'none'}: No such file or directory\n"
    )
