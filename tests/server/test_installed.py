"""Which programs of the machine are too old for HttpTokens=required."""

from __future__ import annotations

from pathlib import Path

import pytest

from imds_proxy.ledger.entries import Installed
from imds_proxy.server.installed import installed


def machine(root: Path, *files: tuple[str, str]) -> dict[str, Installed]:
    for name, text in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {one.name: one for one in installed(7.0, root)}


def version_file(version: str, folder: str = "usr/lib/python3/dist-packages") -> tuple[str, str]:
    text = f'# a comment\n__VERSION__ = "{version}"\n_PACKAGED_VERSION = "@@PACKAGED_VERSION@@"\n'
    return f"{folder}/cloudinit/version.py", text


def test_a_machine_without_them_has_nothing_to_upgrade(tmp_path: Path) -> None:
    assert machine(tmp_path) == {
        "cloud-init": Installed("cloud-init", None, None, 7.0),
        "Cloud Assistant": Installed("Cloud Assistant", None, None, 7.0),
    }


@pytest.mark.parametrize(
    ("version", "old"), [("22.4.2", True), ("23.2.1", True), ("23.2.2", False), ("24.1", False)]
)
def test_cloud_init_is_judged_by_what_lies_on_disk(tmp_path: Path, version: str, old: bool) -> None:
    found = machine(tmp_path, version_file(version))["cloud-init"]
    assert found.version == version
    assert found.where == str(tmp_path / "usr/lib/python3/dist-packages/cloudinit/version.py")
    assert (found.advice is not None) is old


def test_of_two_the_older_counts(tmp_path: Path) -> None:
    newer = version_file("24.2", "usr/local/lib/python3.11/site-packages")
    assert machine(tmp_path, version_file("22.1"), newer)["cloud-init"].version == "22.1"


def test_one_that_does_not_say_its_version_is_not_known(tmp_path: Path) -> None:
    found = machine(tmp_path, ("usr/bin/cloud-init", "#!"), version_file("x"))["cloud-init"]
    assert (found.version, found.where) == (None, str(tmp_path / "usr/bin/cloud-init"))


@pytest.mark.parametrize(
    ("version", "old"), [("2.2.3.700", True), ("2.2.3.857", False), ("2.4.3.900", False)]
)
def test_the_agent_is_judged_by_its_newest_directory(tmp_path: Path, version: str, old: bool) -> None:
    home = "usr/local/share/aliyun-assist"
    found = machine(tmp_path, (f"{home}/{version}/aliyun-service", ""), (f"{home}/2.1.3.1/x", ""))
    assert found["Cloud Assistant"].version == version
    assert (found["Cloud Assistant"].advice is not None) is old
