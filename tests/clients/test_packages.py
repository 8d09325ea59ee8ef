from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imds_proxy.clients.packages import apk_versions, dpkg_versions, machine_rpms, system_packages
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


@pytest.fixture
def rpm(tmp_path: Path) -> list[str]:
    """The machine's rpm with a database of its own, in which ossfs 1.91.1 is installed."""
    assert Path("/usr/bin/rpm").exists(), "rpm is missing: see packaging/system-packages.sh"
    spec = write(
        tmp_path,
        "/ossfs.spec",
        "Name: ossfs\nVersion: 1.91.1\nRelease: 1.al8\nSummary: s\nLicense: x\nBuildArch: noarch\n"
        "%description\nd\n%files\n",
    )
    build = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/rpm", str(spec)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (package,) = (tmp_path / "rpm/RPMS/noarch").glob("*.rpm")
    words = ["rpm", "--dbpath", str(tmp_path / "db"), "--justdb", "--nodeps", "-i", str(package)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return ["/usr/bin/rpm", "--dbpath", str(tmp_path / "db")]


def asked(root: Path, *names: str, command: list[str]) -> list[tuple[str, str | None, str | None]]:
    descriptor = os.open(root, os.O_PATH)
    try:
        return [(one.name, one.version, one.where) for one in machine_rpms(descriptor, names, command)]
    finally:
        os.close(descriptor)


def test_the_machine_s_own_rpm_is_asked_for_what_is_installed(rpm: list[str]) -> None:
    assert asked(Path("/"), "ossfs", "telegraf", command=rpm) == [("ossfs", "1.91.1-1.al8", "rpm")]
    assert asked(Path("/"), command=rpm) == []


def test_of_another_root_nothing_is_asked(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    assert asked(tmp_path, "ossfs", command=["/usr/bin/touch", str(ran)]) == []
    assert not ran.exists()


@pytest.mark.parametrize("command", [["/no/such/rpm"], ["/bin/false"], ["/bin/echo", "ossfs", "a", "b"]])
def test_an_rpm_that_does_not_answer_knows_nothing(command: list[str]) -> None:
    assert asked(Path("/"), "ossfs", command=command) == []


def test_a_database_that_is_a_fifo_or_a_link_out_is_none(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/dpkg/x")
    os.mkfifo(tmp_path / "var/lib/dpkg/status")
    (tmp_path / "lib/apk/db").mkdir(parents=True)
    (tmp_path / "lib/apk/db/installed").symlink_to("/../../../../var/lib/dpkg/status")
    assert versions(tmp_path, "dpkg", "ossfs") == {}
