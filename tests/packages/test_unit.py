"""The installed package under a real systemd: it serves, survives an upgrade, and goes without a trace."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from built import Packages
from machine import Plan, wait_for
from rootfs import debian
from unit_machine import UNIT, UnitMachine, machine_before_cloud

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def installed(packages: Packages, next_deb: Path, tmp_path: Path) -> Iterator[UnitMachine]:
    """A clean Debian that has booted, with a way to a hardened-only service, and the package installed."""
    shutil.copy(packages.deb(), tmp_path / "this.deb")
    shutil.copy(next_deb, tmp_path / "next.deb")
    with machine_before_cloud(Plan(lower=str(debian()), binds={"/packages": str(tmp_path)})) as it:
        it.machine.run("dpkg", "--install", "/packages/this.deb", timeout=120)
        yield it


def configure(it: UnitMachine, text: str) -> None:
    it.machine.run("sh", "-c", f"echo '{text}' > /etc/imds-proxy/config.yaml")


def start(it: UnitMachine) -> None:
    it.machine.run("systemctl", "enable", "--now", UNIT)
    wait_for(lambda: it.ask() == "200", 30, "an answer")


def test_it_serves_goes_on_over_an_upgrade_and_leaves_nothing_when_purged(installed: UnitMachine) -> None:
    it = installed
    assert it.machine.show(UNIT, "ActiveState") == "inactive"
    links = it.said("ip", "address", "show", "lo")
    assert it.ask() == "403", "the service itself, which refuses normal mode"
    start(it)
    refused = it.cloud.state()["refused"]
    assert it.ask() == "200"
    assert it.cloud.state()["refused"] == refused, "the call was upgraded"

    before = it.machine.main_pid(UNIT)
    configure(it, "log: {summary: 30s}")
    options = ["--force-confdef", "--force-confold"]
    it.machine.run("dpkg", *options, "--install", "/packages/next.deb", timeout=120)
    wait_for(lambda: it.machine.main_pid(UNIT) not in {0, before}, 30, "the new version")
    wait_for(lambda: it.ask() == "200", 30, "an answer")

    it.machine.run("dpkg", "--purge", "imds-proxy", timeout=120)
    assert it.ask() == "403", "the way to the service itself is open"
    assert it.said("nft", "list", "ruleset") == ""
    assert it.said("ip", "address", "show", "lo") == links
    assert it.machine.try_run("id", "imds-proxy").returncode == 1
    left = it.said(
        "sh", "-c", "ls -d /etc/imds-proxy /var/lib/imds-proxy /run/imds-proxy /usr/lib/imds-proxy"
    )
    assert left == ""
    assert it.said("systemctl", "list-unit-files", "--no-legend", "imds-proxy*") == ""


def test_a_redirect_that_outlives_the_daemon_goes_with_the_package(installed: UnitMachine) -> None:
    it = installed
    configure(it, "intercept: {on_failure: closed}")
    start(it)
    it.machine.run("systemctl", "stop", UNIT)
    assert it.ask() == "000", "closed: calls are refused"
    it.machine.run("dpkg", "--remove", "imds-proxy", timeout=120)
    assert it.said("nft", "list", "ruleset") == ""
    assert it.ask() == "403", "the way to the service itself is open"
