from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.callers.procfs import (
    ProcessView,
    Stat,
    newest_first,
    parents_of,
    parse_cmdline,
    parse_stat,
    parse_uids,
    pids_newest_first,
)

STAT = b"%d (%s) S 7 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 0 0"


@pytest.mark.parametrize("name", [b"cat", b"a b", b"a) S 1 (b", b"((", b"x\ny", b"\xff", b""])
def test_a_process_name_cannot_forge_the_fields_after_it(name: bytes) -> None:
    assert parse_stat(STAT % (5, name)) == Stat(comm=name, parent=7, start_ticks=123456)


@given(st.binary())
def test_any_bytes_are_a_stat_or_none(text: bytes) -> None:
    parse_stat(text)
    parse_uids(text)


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"", ()), (b"a\0b\0", (b"a", b"b")), (b"a\0\0", (b"a", b"")), (b"nginx: worker", (b"nginx: worker",))],
)
def test_a_command_line_is_words_ended_by_nul(raw: bytes, words: tuple[bytes, ...]) -> None:
    assert parse_cmdline(raw) == words


def test_the_four_uids_are_read() -> None:
    assert parse_uids(b"Name:\tUid:\nUid:\t1\t2\t3\t4\nGid:\t0\t0\t0\t0\n") == (1, 2, 3, 4)


def test_a_view_reads_what_its_process_is(client: Any) -> None:
    client.run("pass")  # it runs, so exec is over
    with ProcessView(client.pid) as view:
        stat, executable = view.stat(), view.executable()
        assert stat is not None
        assert executable is not None
        assert stat.parent == os.getpid()
        file = Path(executable.path).stat()
        assert (executable.device, executable.inode) == (file.st_dev, file.st_ino)
        assert not executable.deleted
        assert parse_cmdline(view.cmdline())[1] == b"-c"
        assert view.uids() == (os.getuid(), os.geteuid(), os.geteuid(), os.geteuid())
        assert view.owner_uid() == os.geteuid()
        assert b":/" in view.cgroup()


def test_a_view_of_a_process_that_ended_reads_nothing(client: Any) -> None:
    with ProcessView(client.pid) as view:
        client.end()
        assert view.stat() is None
        assert view.uids() is None
        assert view.executable() is None
        assert view.cmdline() == b""
        assert view.cgroup() == b""
        assert view.find_socket(1, 10) == (None, 0)
        assert not view.holds(0, 1)


def test_no_such_process_cannot_be_viewed(client: Any) -> None:
    client.end()
    with pytest.raises(OSError):
        ProcessView(client.pid)


def test_an_executable_that_was_deleted_is_marked(tmp_path: Path) -> None:
    import shutil
    import subprocess

    copy = tmp_path / "cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", copy)
    process = subprocess.Popen([copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"  # it runs
    copy.unlink()
    try:
        with ProcessView(process.pid) as view:
            executable = view.executable()
            assert executable is not None
            assert executable.deleted
            assert executable.path == f"{copy} (deleted)"
    finally:
        process.communicate(timeout=10)


def test_a_command_line_is_read_up_to_4_kib(new_client: Callable[..., Any]) -> None:
    client = new_client(["x" * 100_000])
    client.run("pass")
    with ProcessView(client.pid) as view:
        assert len(view.cmdline()) == 4096


def test_the_descriptor_of_a_socket_is_found_and_confirmed() -> None:
    with socket.socket() as sock, ProcessView(os.getpid()) as view:
        inode = os.fstat(sock.fileno()).st_ino
        descriptor, looked = view.find_socket(inode, 100_000)
        assert descriptor == sock.fileno()
        assert looked >= 1
        assert view.holds(descriptor, inode)
        assert not view.holds(descriptor, inode + 1)


def test_no_more_descriptors_are_looked_at_than_allowed() -> None:
    with socket.socket() as sock, ProcessView(os.getpid()) as view:
        assert view.find_socket(os.fstat(sock.fileno()).st_ino, 1) == (None, 1)


def test_the_newest_process_comes_first(client: Any) -> None:
    pids = pids_newest_first()
    assert set(pids) >= {os.getpid(), client.pid}
    assert all(pid > 0 for pid in pids)


def test_after_the_numbers_wrapped_round_the_highest_are_the_oldest(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.00 0.00 0.00 1/100 300\n")
    assert newest_first([1, 200, 300, 301, 32000], str(tmp_path)) == [300, 200, 1, 32000, 301]


def test_ancestors_go_up_to_the_first_process(client: Any) -> None:
    chain = [view.pid for view in parents_of(client.pid)]
    assert chain[:2] == [client.pid, os.getpid()]
    assert len(chain) == len(set(chain)) <= 32
    assert [view.pid for view in parents_of(client.pid, limit=2)] == chain[:2]


def test_a_circle_of_ancestors_ends(tmp_path: Path) -> None:
    for pid, parent in ((10, 11), (11, 10)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes((STAT % (pid, b"x")).replace(b" S 7 ", b" S %d " % parent))
    assert [view.pid for view in parents_of(10, str(tmp_path))] == [10, 11]
