"""What is taken of a real process, and what is left of it when it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imds_proxy.clients.rooted import Budget, Rooted
from imds_proxy.clients.sight import take_sight
from trees import jar


@contextmanager
def running(*words: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says a line when it runs, and ends with its standard input."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


WAIT = (sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()")


def test_a_process_is_seen_with_its_files_and_words(tmp_path: Path) -> None:
    with running(*WAIT, cwd=tmp_path, env={"HTTP_PROXY": "x"}) as process:
        sight = take_sight(process.pid, None)
        assert sight is not None
        with sight:
            assert sight.directory_path == str(tmp_path)
            assert sight.executable_path == str(Path(sys.executable).resolve())
            assert sight.cmdline() == WAIT
            assert b"HTTP_PROXY=x" in sight.environ()
            assert sight.executable_path in sight.mapped()


def test_its_root_and_executable_outlive_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("still here")
    with running(*WAIT) as process:
        sight = take_sight(process.pid, None)
    assert sight is not None and sight.root is not None and sight.executable is not None
    with sight:
        assert sight.cmdline() == () and sight.environ() == b"" and sight.mapped() == ()
        assert Rooted(sight.root, Budget()).text(f"{tmp_path}/file") == "still here"
        assert os.fstat(sight.executable).st_ino == Path(sys.executable).resolve().stat().st_ino


def test_another_process_of_the_same_pid_is_not_taken_for_it() -> None:
    with running(*WAIT) as process:
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        sight = take_sight(process.pid, ticks)
        assert sight is not None
        sight.close()
        assert take_sight(process.pid, ticks + 1) is None


def test_one_that_has_ended_is_not_seen() -> None:
    with running(*WAIT) as process:
        pid = process.pid
    assert take_sight(pid, None) is None


def test_open_archives_are_held(tmp_path: Path) -> None:
    path = jar(tmp_path / "a.jar", {"a": "b"})
    os.mkfifo(tmp_path / "pipe.jar")
    program = f"import sys; f = open({str(path)!r}); print('here', flush=True); sys.stdin.read()"
    with running(sys.executable, "-c", program) as process:
        sight = take_sight(process.pid, None)
        assert sight is not None
        with sight:
            ((name, held),) = sight.archives()
            assert name == str(path)
            os.close(held)


@pytest.mark.root
def test_paths_of_a_process_in_a_root_of_its_own_are_as_it_sees_them(tmp_path: Path) -> None:
    code = f"""
import os, sys
os.chroot({str(tmp_path)!r}); os.chdir("/srv")
print("here", flush=True); sys.stdin.read()
"""
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/file").write_text("inside")
    with running(sys.executable, "-c", code) as process:
        sight = take_sight(process.pid, None)
        assert sight is not None and sight.root is not None
        with sight:
            assert sight.directory_path == "/srv"
            assert sight.executable_path is None  # it stands outside
            assert Rooted(sight.root, Budget()).text("/srv/file") == "inside"


def test_no_descriptor_is_left_behind() -> None:
    with running(*WAIT) as process:
        before = len(list(Path("/proc/self/fd").iterdir()))
        sight = take_sight(process.pid, None)
        assert sight is not None
        sight.close()
        assert take_sight(process.pid, 0) is None
        assert len(list(Path("/proc/self/fd").iterdir())) == before
