"""Checks of the machine, on this one's kernel and on trees as others have them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from imds_proxy.doctor import machine

STATUS = "Name:\tpython\nUid:\t1000\t{uid}\t0\t0\nCapEff:\t{caps:016x}\n"


def test_this_interpreter_is_named() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in machine.python().sentence


def test_a_missing_uvloop_is_a_warning_that_names_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    finding = machine.uvloop()
    assert finding.state == "warn"
    assert "asyncio" in finding.sentence


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("5.10.134-16.al8", "warn"),
        ("5.12.0", "ok"),
        ("6.1.0-13-amd64", "ok"),
        ("4.19", "warn"),
        ("weird", "unknown"),
    ],
)
def test_owner_tables_came_with_linux_5_12(release: str, state: str) -> None:
    named, tables = machine.kernel(release)
    assert (named.state, tables.state) == ("ok", state)


def test_the_capabilities_that_are_missing_are_named_with_their_use() -> None:
    user, capabilities = machine.privileges(STATUS.format(uid=7, caps=1 << 12))
    assert user.sentence == "runs as uid 7"
    assert capabilities.state == "warn"
    assert "NET_ADMIN" not in capabilities.sentence
    assert "NET_BIND_SERVICE (ports below 1024)" in capabilities.sentence


def test_all_capabilities_are_ok_and_an_unreadable_status_is_unknown() -> None:
    assert machine.privileges(STATUS.format(uid=0, caps=2**41 - 1))[1].state == "ok"
    assert {one.state for one in machine.privileges("")} == {"unknown"}


def test_this_process_is_known_to_its_own_status_file() -> None:
    user, _ = machine.privileges(Path("/proc/self/status").read_text())
    assert user.sentence == f"runs as uid {os.geteuid()}"


@pytest.mark.parametrize(
    ("entries", "state", "said"),
    [
        (["cgroup.controllers"], "ok", "cgroup v2"),
        (["unified/cgroup.controllers", "memory/tasks"], "warn", "hybrid"),
        (["memory/tasks"], "warn", "cgroup v1"),
        ([], "unknown", "no cgroups"),
    ],
)
def test_the_cgroup_hierarchy_is_told_by_its_mounts(
    tmp_path: Path, entries: list[str], state: str, said: str
) -> None:
    for entry in entries:
        (tmp_path / entry).parent.mkdir(exist_ok=True)
        (tmp_path / entry).touch()
    finding = machine.cgroups(tmp_path)
    assert finding.state == state
    assert said in finding.sentence


def test_user_namespaces_are_really_tried() -> None:
    before = Path("/proc/self/ns/user").stat().st_ino
    assert machine.user_namespaces().state in {"ok", "warn"}
    assert Path("/proc/self/ns/user").stat().st_ino == before


def test_user_namespaces_that_fail_are_a_warning_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_NAMESPACE_TRIAL", "raise SystemExit('unshare: not permitted')")
    finding = machine.user_namespaces()
    assert finding.state == "warn"
    assert "unshare: not permitted" in finding.sentence


def test_systemd_is_told_by_its_directory(tmp_path: Path) -> None:
    assert machine.systemd(tmp_path).state == "warn"
    (tmp_path / "systemd" / "system").mkdir(parents=True)
    assert machine.systemd(tmp_path).state == "ok"


def test_the_state_directory_may_be_there_or_be_made(tmp_path: Path) -> None:
    assert machine.state_directory(tmp_path).state == "ok"
    assert machine.state_directory(tmp_path / "a" / "b").state == "ok"
    (tmp_path / "file").touch()
    assert machine.state_directory(tmp_path / "file").state == "bad"
    assert machine.state_directory(tmp_path / "file" / "below").state == "warn"


def test_a_state_directory_that_cannot_be_written_is_a_warning() -> None:
    finding = machine.state_directory(Path("/proc/self/imds-proxy/state"))
    assert finding.state == "warn" or os.access("/proc/self", os.W_OK)
