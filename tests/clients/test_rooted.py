"""Files are read below a process's root, and hostile ones cost a bounded time and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imds_proxy.clients.rooted import Budget, Exhausted
from trees import rooted, write


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    write(tmp_path, "/a", "hello")
    with rooted(tmp_path) as files:
        assert files.read("/a", 4) == b"hell"
        assert files.text("/a") == "hello"
        assert files.read("/missing") is None


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../../../../../etc/passwd", "/proc/1/root/etc/passwd"]
)
def test_a_link_out_of_the_root_reads_nothing_outside(tmp_path: Path, target: str) -> None:
    (tmp_path / "METADATA").symlink_to(target)
    with rooted(tmp_path) as files:
        assert files.read("/METADATA") is None


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "loop", "link to a fifo"])
def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "METADATA"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
        (tmp_path / "dev").mkdir()
        try:
            os.mknod(tmp_path / "dev/zero", 0o020666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("no device can be made here")
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to("/METADATA")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("/pipe")
    began = time.monotonic()
    with rooted(tmp_path) as files:
        assert files.read("/METADATA") is None
        assert files.open("/METADATA") is None
    assert time.monotonic() - began < 20


def test_a_huge_file_is_read_in_part(tmp_path: Path) -> None:
    path = write(tmp_path, "/big")
    os.truncate(path, 1 << 40)
    with rooted(tmp_path) as files:
        assert files.read("/big", 1000) == bytes(1000)


def test_a_directory_is_listed_to_a_bound(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path, f"/d/{number}")
    with rooted(tmp_path) as files:
        assert len(files.names("/d")) == 50
        assert files.names("/d/1") == []
        assert files.is_directory("/d")
        assert not files.is_directory("/d/1")


def test_bytes_files_and_time_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "/a", "x" * 100)
    with rooted(tmp_path, size=150) as files:
        files.read("/a")
        with pytest.raises(Exhausted):
            files.read("/a")
    with rooted(tmp_path, files=2) as files:
        files.read("/a")
        files.read("/a")
        with pytest.raises(Exhausted):
            files.read("/a")
    with rooted(tmp_path, seconds=-1) as files, pytest.raises(Exhausted):
        files.read("/a")


def test_a_clock_may_be_given() -> None:
    now = [0.0]
    budget = Budget(seconds=1, clock=lambda: now[0])
    budget.file()
    now[0] = 1.1
    with pytest.raises(Exhausted):
        budget.file()


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path, "/a", "x")
    os.mkfifo(tmp_path / "pipe")
    with rooted(tmp_path) as files:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for path in ("/a", "/pipe", "/", "/missing"):
            files.read(path)
            files.names(path)
            files.is_directory(path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
