"""The command line: exit codes, and errors that say what, where and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


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


def test_starting_up_imports_neither_the_emulator_nor_the_demo() -> None:
    code = (
        "import sys, imds_proxy.server.run\n"
        "print([n for n in sys.modules if n.startswith(('imds_proxy.emulator', 'imds_proxy.demo'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
