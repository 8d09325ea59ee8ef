"""Files by device and inode: a name alone, a copy or another root's file is not it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.procfs import Executable, ProcessView
from imds_proxy.demo.processes import ending


@contextmanager
def running(program: Path, *words: str) -> Iterator[ProcessView]:
    with ending(subprocess.Popen([program, *words], text=True)) as process, ProcessView(process.pid) as view:
        while (executable := view.executable()) is None or Path(executable.path).name != program.name:
            pass
        yield view


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "sleeper"
    shutil.copy(Path("/bin/sleep").resolve(), path)
    return path


def names(files: HostFiles, view: ProcessView) -> frozenset[str]:
    executable = view.executable()
    assert executable is not None
    return files.names_of(executable)


def test_a_program_has_its_own_path_and_those_watched_ones_that_are_it(program: Path, tmp_path: Path) -> None:
    link, hard, copy = tmp_path / "link", tmp_path / "hard", tmp_path / "copy"
    link.symlink_to(program)
    hard.hardlink_to(program)
    shutil.copy(program, copy)
    with running(program, "60") as view:
        assert names(HostFiles(map(str, (link, hard, copy))), view) == {str(program), str(link), str(hard)}
        assert names(HostFiles(), view) == {str(program)}


class Clock:
    """Goes on by `step` at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_paths_that_take_long_to_look_up_rest_and_a_name_that_ended_meanwhile_is_none(
    program: Path, tmp_path: Path
) -> None:
    links = [tmp_path / f"link{n}" for n in range(3)]
    links[0].symlink_to(program)
    clock = Clock(0.01)
    files = HostFiles(map(str, links), clock=clock)
    status = program.stat()
    executable = Executable(str(program), status.st_dev, status.st_ino)
    assert files.names_of(executable) == {str(program), str(links[0])}
    links[1].symlink_to(program)
    links[0].unlink()
    assert files.names_of(executable) == {str(program)}
    clock.now += 0.5
    assert files.names_of(executable) == {str(program), str(links[1])}


def test_paths_that_are_looked_up_at_once_are_looked_up_for_each_process(
    program: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    files = HostFiles([str(link)], clock=Clock(0))
    status = program.stat()
    executable = Executable(str(program), status.st_dev, status.st_ino)
    assert files.names_of(executable) == {str(program)}
    link.symlink_to(program)
    assert files.names_of(executable) == {str(program), str(link)}


def test_a_program_whose_file_was_replaced_or_removed_has_no_name(program: Path) -> None:
    with running(program, "60") as view:
        other = program.with_name("other")
        shutil.copy(program, other)
        other.replace(program)
        assert names(HostFiles([str(program)]), view) == frozenset()
        program.unlink()
        assert names(HostFiles([str(program)]), view) == frozenset()


def test_in_a_root_of_its_own_absolute_links_stay_inside(program: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "inside").hardlink_to(program)
    (root / "bin" / "alias").symlink_to("/bin/inside")
    (root / "bin" / "up").symlink_to("../../../../../../bin/inside")
    status = program.stat()
    executable = Executable("/bin/inside", status.st_dev, status.st_ino)
    found = HostFiles(["/bin/alias", "/bin/up", "/bin/sleep"], root=str(root)).names_of(executable)
    assert found == {"/bin/inside", "/bin/alias", "/bin/up"}


def test_without_a_look_at_the_hosts_root_ours_counts() -> None:
    status = Path("/bin/sleep").stat()
    executable = Executable("/bin/sleep", status.st_dev, status.st_ino)
    assert "/bin/sleep" in HostFiles(root="/nonexistent").names_of(executable)
    assert HostFiles(["relative", "/bin/\0"], root="/nonexistent").names_of(executable) == {"/bin/sleep"}


def test_the_digest_is_of_the_file_and_remembered_until_that_changes(program: Path) -> None:
    files = HostFiles(hashed=True)
    with running(program, "60") as view:
        executable = view.executable()
        assert executable is not None
        wanted = sha256(program.read_bytes()).hexdigest()
        assert files.sha256_of(view, executable) == wanted
        assert files.sha256_of(view, executable) == wanted
        assert HostFiles().sha256_of(view, executable) is None
        os.utime(program, (1, 1))
        assert files.sha256_of(view, executable) == wanted
        assert files.sha256_of(view, Executable("/x", 1, 1)) is None
