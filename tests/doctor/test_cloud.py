"""Checks of the cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imds_proxy.config import Address
from imds_proxy.doctor import cloud


def test_ecs_is_told_by_its_product_name(tmp_path: Path) -> None:
    assert cloud.machine_type(tmp_path).state == "unknown"
    (tmp_path / "class/dmi/id").mkdir(parents=True)
    name = tmp_path / "class/dmi/id/product_name"
    name.write_text("Alibaba Cloud ECS\n")
    assert cloud.machine_type(tmp_path).state == "ok"
    name.write_text("Standard PC\n")
    assert not cloud.on_ecs(tmp_path)


@pytest.mark.parametrize(("required", "said"), [(True, "required"), (False, "optional")])
def test_the_mode_is_found_by_two_requests(service: Any, required: bool, said: str) -> None:
    service.required = required
    finding = cloud.upstream_mode(service.address)
    assert finding.state == "ok"
    assert f"HttpTokens is {said}" in finding.sentence
    assert [line.split()[0] for line in service.requests] == ["GET", "PUT"]


def test_a_service_that_is_not_there_is_bad() -> None:
    assert cloud.upstream_mode(Address("127.0.0.1", 9)).state == "bad"


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("/usr/bin/cloud-init 23.2.2-0ubuntu0~22.04.1", "ok"),
        ("cloud-init 24.1", "ok"),
        ("/usr/bin/cloud-init 23.2.1", "warn"),
        ("/usr/bin/cloud-init 19.1.21", "warn"),
        ("/usr/bin/cloud-init 23.2", "warn"),
        ("Traceback", "unknown"),
    ],
)
def test_cloud_init_speaks_hardened_mode_since_23_2_2(output: str, state: str) -> None:
    assert cloud.judge_cloud_init(output).state == state


def test_cloud_init_is_asked_or_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "cloud-init"
    program.write_text("#!/bin/sh\necho cloud-init 22.4.2 >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(cloud, "find_program", lambda name: str(program))
    assert "22.4.2" in cloud.cloud_init().sentence
    monkeypatch.setattr(cloud, "find_program", lambda name: None)
    assert cloud.cloud_init().state == "ok"


@pytest.mark.parametrize(
    ("versions", "state"),
    [
        (["2.2.3.857"], "ok"),
        (["2.4.3.857"], "ok"),
        (["2.2.3.700", "2.2.3.900"], "ok"),
        (["2.2.3.700", "work"], "warn"),
        (["work"], "unknown"),
    ],
)
def test_the_agents_newest_version_counts(tmp_path: Path, versions: list[str], state: str) -> None:
    for version in versions:
        (tmp_path / version).mkdir()
    assert cloud.agent(tmp_path).state == state


def test_no_agent_is_ok(tmp_path: Path) -> None:
    assert cloud.agent(tmp_path / "none").state == "ok"
