from __future__ import annotations

import os
from pathlib import Path

import pytest

from imds_proxy.openat2 import open_in_root


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/hostname").write_text("inside")
    (tmp_path / "outside").write_text("outside")
    return os.open(tmp_path / "root", os.O_PATH)


def read(root: int, path: str) -> str:
    with os.fdopen(open_in_root(root, path, os.O_RDONLY)) as file:
        return file.read()


@pytest.mark.parametrize("path", ["/etc/hostname", "etc/hostname", "../../etc/hostname", "/link", "/up"])
def test_links_and_dots_stay_inside_the_root(root: int, tmp_path: Path, path: str) -> None:
    (tmp_path / "root/link").symlink_to("/etc/hostname")
    (tmp_path / "root/up").symlink_to("../../../../etc/hostname")
    assert read(root, path) == "inside"


@pytest.mark.parametrize("path", ["/../outside", "/escape"])
def test_what_is_outside_cannot_be_reached(root: int, tmp_path: Path, path: str) -> None:
    (tmp_path / "root/escape").symlink_to(tmp_path / "outside")
    with pytest.raises(FileNotFoundError):
        open_in_root(root, path)


def test_the_links_of_proc_lead_nowhere() -> None:
    host = os.open("/", os.O_PATH)
    with pytest.raises(OSError, match="/proc/self/root"):
        open_in_root(host, "/proc/self/root/etc/passwd")


def test_a_nul_is_no_path(root: int) -> None:
    with pytest.raises(ValueError, match="null"):
        open_in_root(root, "a\0b")
