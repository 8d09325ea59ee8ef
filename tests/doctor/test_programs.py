"""Asking installed programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imds_proxy.doctor import programs
from imds_proxy.doctor.programs import ask_program, find_program


def test_a_program_is_found_outside_path_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_program("sh") is not None
    assert find_program("no-such-program-here") is None


def test_both_streams_are_read_and_bounded() -> None:
    code, output = ask_program(sys.executable, "-c", "import sys; sys.stderr.write('x' * 9000); sys.exit(3)")
    assert (code, output) == (3, "x" * 4000)


def test_a_program_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_SECONDS", 0.2)
    assert ask_program(sys.executable, "-c", "import signal; signal.pause()") == (-9, "")


def test_what_cannot_be_started_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ask_program(str(tmp_path / "none"))
