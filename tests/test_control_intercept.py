"""`imds-proxy intercept`, as it is typed, with a daemon and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud import Lab, cloud_and_host


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cloud_and_host("--http-tokens", "required") as made:
        yield made


def alone(
    lab: Lab, directory: Path, *words: str, on_failure: str = "closed"
) -> subprocess.CompletedProcess[str]:
    """The command where no daemon is."""
    config = directory / "config.yaml"
    config.write_text(f"admin: {{socket: {directory}/admin.sock}}\nintercept: {{on_failure: {on_failure}}}\n")
    return lab.host.client(sys.executable, "-m", "imds_proxy", "intercept", *words, "-c", str(config))


def test_the_daemon_is_asked(lab: Lab) -> None:
    before = lab.host.everything()
    with lab.daemon() as daemon:
        off = lab.intercept(daemon, "status")
        assert (off.returncode, off.stdout.splitlines()[0]) == (
            1,
            "off: calls go to the metadata service itself",
        )
        up = lab.intercept(daemon, "up", "--takeover")
        assert up.returncode == 0
        assert up.stdout.startswith("in force: calls to the metadata service come to the proxy\n")
        assert "closed 0 connections" in up.stderr
        status = lab.intercept(daemon, "status", "--json")
        report = json.loads(status.stdout)
        assert (status.returncode, report["state"], report["schema"]) == (0, "in-force", 1)
        assert (report["method"], report["held_by"], report["daemon"]) == ("nftables", "owner-table", True)
        down = lab.intercept(daemon, "down")
        assert (down.returncode, down.stdout) == (0, "down: calls go to the metadata service itself\n")
        assert lab.intercept(daemon, "down").stdout == "it was not up\n"
        assert lab.host.everything() == before


def test_without_a_daemon_open_is_refused_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    done = alone(lab, tmp_path, "up", on_failure="open")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "imds-proxy intercept up: no daemon answers, and only one can hold a redirect that ends with it;"
    )


def test_without_a_daemon_closed_goes_up_and_down(lab: Lab, tmp_path: Path) -> None:
    before = lab.host.everything()
    up = alone(lab, tmp_path, "up", "--takeover")
    assert up.returncode == 0
    assert up.stdout.startswith("refusing: nobody serves, and on_failure is closed: calls are refused\n")
    assert lab.get().exit_code == 7  # curl: connection refused
    assert lab.get().seconds < 0.5
    status = alone(lab, tmp_path, "status", "--json")
    assert (status.returncode, json.loads(status.stdout)["state"]) == (1, "refusing")
    assert alone(lab, tmp_path, "down").returncode == 0
    assert lab.host.everything() == before
    assert alone(lab, tmp_path, "status").returncode == 1


def test_a_daemon_takes_over_what_was_put_up_without_it(lab: Lab, tmp_path: Path) -> None:
    before = lab.host.everything()
    assert alone(lab, tmp_path, "up").returncode == 0
    with lab.daemon("--intercept", settings={"intercept": {"on_failure": "closed"}}) as daemon:
        assert lab.get().status == 200
        assert lab.intercept(daemon, "down").returncode == 0
    assert lab.host.everything() == before


def test_without_the_right_to_look_the_state_is_unknown(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"admin: {{socket: {tmp_path}/admin.sock}}\n")
    tmp_path.chmod(0o755)
    words = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable]
    done = lab.host.client(*words, "-m", "imds_proxy", "intercept", "status", "-c", str(config))
    assert done.returncode == 3
    assert done.stdout.startswith("unknown: the kernel does not tell\n")
    assert "CAP_NET_ADMIN" in done.stdout


def test_a_refused_configuration_is_78(lab: Lab, tmp_path: Path) -> None:
    assert alone(lab, tmp_path, "status", on_failure="ajar").returncode == 78
