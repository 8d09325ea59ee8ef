"""The command line: exit codes, and errors that say what, where and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imds_proxy.cli import main


def imds_proxy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imds_proxy", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["emulate"], ["doctor"], ["report"], ["demo"]])
def test_every_command_has_help(command: list[str]) -> None:
    done = imds_proxy(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: imds-proxy")


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["run", "--mode", "maybe"], ["run", "--listen", "nowhere"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert imds_proxy(*arguments).returncode == 2


def test_a_refused_configuration_is_exit_code_78_with_every_error(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mdoe: upgrade\nupstream: {deadline: 900}\n")
    for command in ("check", "run"):
        done = imds_proxy(command, "-c", str(config))
        assert done.returncode == 78
        assert f"{config}:1:" in done.stderr
        assert f"{config}:2:" in done.stderr


def test_a_good_configuration_is_exit_code_0(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mode: enforce\n")
    assert imds_proxy("check", "-c", str(config)).returncode == 0


# Callers wait while the daemon starts: each of these is imported where it is first used.
NO_PART_OF_A_START = {
    "other commands": ("imds_proxy.emulator", "imds_proxy.demo", "imds_proxy.doctor", "imds_proxy.control"),
    "what names clients": (
        "imds_proxy.clients.advice",
        "imds_proxy.clients.catalogue",
        "imds_proxy.clients.look",
        "imds_proxy.clients.naming",
    ),
    "pods": ("imds_proxy.kubernetes",),
    "workers": ("imds_proxy.server.workers", "multiprocessing"),
    "the second way to redirect": ("imds_proxy.intercept.ebpf", "imds_proxy.intercept.rewriting"),
    "numbers for monitoring": ("prometheus_client",),
    "dear parts of the standard library": ("email", "platform", "http.client"),
}


@pytest.fixture(scope="module")
def imported_at_a_start() -> list[str]:
    code = "import sys, imds_proxy.cli, imds_proxy.config, imds_proxy.server.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize("rooms", NO_PART_OF_A_START.values(), ids=NO_PART_OF_A_START)
def test_a_start_does_not_wait_for(rooms: tuple[str, ...], imported_at_a_start: list[str]) -> None:
    assert "imds_proxy.server.run" in imported_at_a_start
    needless = [
        one for one in imported_at_a_start if f"{one}.".startswith(tuple(f"{room}." for room in rooms))
    ]
    assert not needless


def test_an_unknown_option_is_said_with_the_usage_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--no-such-option"])
    assert "usage: imds-proxy [-h] [--version] COMMAND" in capsys.readouterr().err


def test_without_a_command_all_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["dance"], ["--help"]):
        with pytest.raises(SystemExit):
            main(words)
    said = capsys.readouterr()
    assert "'demo'" in said.err
    assert "an ECS metadata service for trials" in said.out
