from __future__ import annotations

import json
from pathlib import Path

import pytest

from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.programs import image_version, programs
from trees import rooted, write


def found(root: Path, executable: str | None, script: str | None = None) -> list[tuple[str, str | None]]:
    with rooted(root) as files:
        return [(one.name, one.version) for one in programs(files, executable, script, catalogue())]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/ossfs", "ossfs"),
        ("/opt/tf/terraform-provider-alicloud_v1.230.0", "terraform-provider-alicloud*"),
        ("/usr/local/cloudmonitor/bin/argusagent", "argusagent"),
        ("/opt/datadog-agent/bin/agent/agent", "/opt/datadog-agent/*"),
    ],
)
def test_a_program_is_known_by_its_path(tmp_path: Path, path: str, name: str) -> None:
    assert found(tmp_path, path) == [(name, None)]


def test_any_other_is_none_of_ours(tmp_path: Path) -> None:
    assert found(tmp_path, "/usr/bin/agent") == []
    assert found(tmp_path, None) == []


def test_cloud_assistant_stands_in_a_directory_of_its_version(tmp_path: Path) -> None:
    path = "/usr/local/share/aliyun-assist/2.2.3.578/aliyun-service"
    assert ("/usr/local/share/aliyun-assist/*/aliyun-service", "2.2.3.578") in found(tmp_path, path)


def test_logtail_writes_its_version_to_a_file(tmp_path: Path) -> None:
    write(tmp_path, "/usr/local/ilogtail/app_info.json", json.dumps({"logtail_version": "1.8.7", "ip": "x"}))
    assert found(tmp_path, "/usr/local/ilogtail/ilogtail") == [("ilogtail", "1.8.7")]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"logtail_version": 3}', '{"logtail_version": "x; y"}', "[" * 60_000]
)
def test_a_file_that_does_not_tell_leaves_it_unknown(tmp_path: Path, text: str) -> None:
    write(tmp_path, "/usr/local/ilogtail/app_info.json", text)
    assert found(tmp_path, "/usr/local/ilogtail/ilogtail") == [("ilogtail", None)]


def test_a_script_is_known_by_its_name(tmp_path: Path) -> None:
    assert found(tmp_path, "/usr/bin/python3.11", "/usr/bin/cloud-init") == [("cloud-init", None)]


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry-vpc.cn-hangzhou.aliyuncs.com/acs/terway:v1.9.0", "v1.9.0"),
        ("registry:5000/acs/terway", None),
        ("registry/acs/terway:v1.14.0@sha256:" + "0" * 64, "v1.14.0"),
    ],
)
def test_an_image_is_known_by_the_end_of_its_name(image: str, version: str | None) -> None:
    assert [(one.name, one.version) for one in image_version(image, catalogue())] == [("acs/terway", version)]


def test_an_image_whose_name_only_ends_alike_is_another() -> None:
    assert list(image_version("registry/myacs/terway:1", catalogue())) == []
