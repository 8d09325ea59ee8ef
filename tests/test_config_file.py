"""Whose file it is, and whether it held still while it was read (ATTACKS row 33)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy import config_file
from imds_proxy.config_file import LARGEST_FILE, FileRefused, read_text

root_only = pytest.mark.skipif(not config_file._is_root(), reason="owners differ for root only")
NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "etc").mkdir(mode=0o755)
    file = tmp_path / "etc" / "config.yaml"
    file.write_text("mode: upgrade\n")
    file.chmod(0o644)
    yield tmp_path / "etc"


def test_a_file_is_read(place: Path) -> None:
    assert read_text(place / "config.yaml") == "mode: upgrade\n"


def test_a_relative_path_with_dots_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert read_text(Path("../etc/./config.yaml")) == "mode: upgrade\n"


def test_the_links_of_a_config_map_are_followed(place: Path) -> None:
    # Kubernetes: config.yaml -> ..data/config.yaml, ..data -> ..2026_01_01
    version = place / "..2026_01_01"
    version.mkdir(mode=0o755)
    (place / "config.yaml").rename(version / "config.yaml")
    (place / "..data").symlink_to("..2026_01_01")
    (place / "config.yaml").symlink_to("..data/config.yaml")
    (place / "absolute").symlink_to(place / "config.yaml")
    assert read_text(place / "config.yaml") == read_text(place / "absolute") == "mode: upgrade\n"


@pytest.mark.parametrize(
    "make", ["missing", "directory", "fifo", "loop", "below-a-file", "too-large", "latin-1"]
)
def test_what_is_no_readable_file_is_refused_at_once(place: Path, make: str) -> None:
    file = place / "x"
    said = {"missing": "no such file", "directory": "a directory|regular", "fifo": "not a regular file"}
    if make == "directory":
        file.mkdir()
    elif make == "fifo":
        os.mkfifo(file)
    elif make == "loop":
        file.symlink_to("x")
    elif make == "below-a-file":
        file = place / "config.yaml" / "x"
    elif make == "too-large":
        with file.open("wb") as stream:
            stream.truncate(LARGEST_FILE * 100)
        file.chmod(0o644)
    elif make == "latin-1":
        file.write_bytes(b"a: 1\nb: \xe9\n")
        file.chmod(0o644)
    said |= {
        "loop": "symbolic links",
        "below-a-file": "cannot be opened",
        "too-large": f"at most {LARGEST_FILE}",
    }
    said |= {"latin-1": "not UTF-8 on line 2"}
    with pytest.raises(FileRefused, match=said[make]):
        read_text(file)


def test_a_file_that_changes_while_it_is_read_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "config.yaml"
    read = os.read

    def read_and_append(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if data:
            with file.open("a") as stream:
                stream.write("tokens: sealed\n")
            monkeypatch.setattr(os, "read", read)
        return data

    monkeypatch.setattr(os, "read", read_and_append)
    with pytest.raises(FileRefused, match="changed while it was read"):
        read_text(file)
    assert "sealed" in read_text(file)


def test_a_file_that_everybody_can_write_is_refused_whoever_reads(place: Path) -> None:
    (place / "config.yaml").chmod(0o666)
    with pytest.raises(FileRefused, match=r"can be written by others \(mode 0666\)"):
        read_text(place / "config.yaml")
    assert read_text(place / "config.yaml", check_owner=False)


@root_only
def test_root_refuses_a_file_of_another_user(place: Path) -> None:
    os.chown(place / "config.yaml", NOBODY, -1)
    with pytest.raises(FileRefused, match="belongs to uid 65534"):
        read_text(place / "config.yaml")


@root_only
def test_root_refuses_a_directory_of_another_user(place: Path) -> None:
    os.chown(place, NOBODY, -1)
    with pytest.raises(FileRefused, match="etc belongs to uid 65534"):
        read_text(place / "config.yaml")


@root_only
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_root_refuses_a_directory_that_others_can_write(place: Path, mode: int) -> None:
    place.chmod(mode)
    with pytest.raises(FileRefused, match="etc can be written by others"):
        read_text(place / "config.yaml")


@root_only
def test_root_takes_its_own_file_from_a_sticky_directory_but_no_link_that_others_made_there(
    place: Path,
) -> None:
    place.chmod(0o1777)
    assert read_text(place / "config.yaml")
    (place / "link").symlink_to("config.yaml")
    os.chown(place / "link", NOBODY, -1, follow_symlinks=False)
    with pytest.raises(FileRefused, match="link belongs to uid 65534"):
        read_text(place / "link")


@root_only
def test_root_refuses_a_link_into_a_place_of_others(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (place / "config.yaml").rename(other / "config.yaml")
    (place / "config.yaml").symlink_to("../other/config.yaml")
    os.chown(other, NOBODY, -1)
    with pytest.raises(FileRefused, match="other belongs to uid 65534"):
        read_text(place / "config.yaml")


@root_only
def test_a_read_only_mount_passes_whoever_owns_it(place: Path) -> None:
    os.chown(place / "config.yaml", NOBODY, -1)
    place.chmod(0o777)
    script = (
        "mount --bind $0 $0 && mount -o remount,ro,bind $0 && exec $1 -c "
        "'import sys, pathlib; from imds_proxy.config_file import read_text; "
        'sys.stdout.write(read_text(pathlib.Path(sys.argv[1])))\' "$0/config.yaml"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(place), sys.executable],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine allows no mounts")
    assert done.stdout == "mode: upgrade\n", done.stderr


def test_in_a_user_namespace_of_one_user_owners_are_not_judged(place: Path) -> None:
    script = (
        "import sys, pathlib; from imds_proxy.config_file import read_text; "
        "read_text(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", script, str(place / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "Operation not permitted" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert done.returncode == 0, done.stderr
