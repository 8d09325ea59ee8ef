from __future__ import annotations

import os
from pathlib import Path

from imds_proxy.clients.packages import apk_versions, dpkg_versions, system_packages
from trees import rooted, write

DPKG = """Package: cloud-init
Status: install ok installed
Version: 22.4.2-1+deb12u4
Description: boot
 Package: ossfs

Package: ossfs
Status: deinstall ok config-files
Version: 1.80.6
"""
APK = "C:Q1\nP:ossfs\nV:1.91.1-r0\nA:x86_64\n\nP:musl\nV:1.2\n"


def versions(root: Path, *names: str) -> dict[str, tuple[str | None, str | None]]:
    with rooted(root) as files:
        return {one.name: (one.version, one.where) for one in system_packages(files, names)}


def test_dpkg_tells_of_what_is_installed() -> None:
    assert dpkg_versions(DPKG.encode(), frozenset({"cloud-init", "ossfs"})) == {
        "cloud-init": "22.4.2-1+deb12u4"
    }


def test_apk_tells_of_what_is_installed() -> None:
    assert apk_versions(APK.encode(), frozenset({"ossfs"})) == {"ossfs": "1.91.1-r0"}


def test_the_database_of_the_root_is_asked(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/dpkg/status", DPKG)
    assert versions(tmp_path, "cloud-init") == {"cloud-init": ("22.4.2-1+deb12u4", "dpkg")}
    assert versions(tmp_path) == {}


def test_an_image_without_dpkg_has_a_file_for_each(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/dpkg/status.d/telegraf", "Package: telegraf\nVersion: 1:1.30.0-1\n")
    assert versions(tmp_path, "telegraf") == {"telegraf": ("1.30.0-1", "dpkg")}


def test_a_database_that_is_a_fifo_or_a_link_out_is_none(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/dpkg/x")
    os.mkfifo(tmp_path / "var/lib/dpkg/status")
    (tmp_path / "lib/apk/db").mkdir(parents=True)
    (tmp_path / "lib/apk/db/installed").symlink_to("/../../../../var/lib/dpkg/status")
    assert versions(tmp_path, "dpkg", "ossfs") == {}
