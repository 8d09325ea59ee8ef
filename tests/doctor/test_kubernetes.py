"""Checks of a Kubernetes node: pod network and ACK's components, from what stands on the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.doctor import kubernetes
from imds_proxy.doctor.kubernetes import judge_components, judge_network, pod_network

TERWAY: dict[str, Any] = {"cniVersion": "0.4.0", "name": "terway", "type": "terway"}
HOST = {"host_stack_cidrs": ["169.254.20.10/32", "100.100.100.200/32"]}


def chained(**more: object) -> str:
    return json.dumps({"name": "terway-chainer", "plugins": [TERWAY | more, {"type": "cilium-cni"}]})


@pytest.mark.parametrize(
    ("text", "state", "said"),
    [
        (json.dumps({"plugins": [{"type": "flannel"}, {"type": "portmap"}]}), "ok", "cni0"),
        (json.dumps(TERWAY), "ok", "cali*"),
        (json.dumps(TERWAY | {"eniip_virtual_type": "Veth"}), "ok", "cali*"),
        (json.dumps(TERWAY | {"eniip_virtual_type": "PolicyRoute"}), "ok", "cali*"),
        (json.dumps(TERWAY | {"eniip_virtual_type": "IPVlan"}), "warn", "does not pass"),
        (chained(eniip_virtual_type="IPVlan"), "warn", "does not pass"),
        (chained(eniip_virtual_type="datapathv2"), "warn", "does not pass"),
        (
            chained(eniip_virtual_type="datapathv2", host_stack_cidrs=["169.254.0.0/16"]),
            "warn",
            "does not pass",
        ),
        (chained(eniip_virtual_type="datapathv2", **HOST), "ok", "host_stack_cidrs"),
        (
            chained(eniip_virtual_type="IPVlan", host_stack_cidrs=["no", 7, "100.0.0.0/8"]),
            "ok",
            "through the node",
        ),
        (json.dumps({"type": "calico"}), "unknown", "calico"),
        ("{", "unknown", "not JSON"),
        ("[]", "unknown", "not JSON"),
        ('{"plugins": 3}', "unknown", "not JSON"),
    ],
)
def test_the_pod_network_tells_whether_the_node_agent_sees_pods(text: str, state: str, said: str) -> None:
    finding = judge_network(text)
    assert finding.state == state
    assert said in finding.sentence
    if state == "warn":
        assert "sidecar" in (finding.remedy or "")


def test_the_first_file_counts_as_it_does_for_the_kubelet(tmp_path: Path) -> None:
    assert "no Kubernetes node" in pod_network(tmp_path / "missing").sentence
    assert "no Kubernetes node" in pod_network(tmp_path).sentence
    (tmp_path / "README").write_text("not this")
    (tmp_path / "20-other.conf").write_text('{"type": "bridge"}')
    (tmp_path / "10-terway.conflist").write_text(chained(eniip_virtual_type="datapathv2"))
    assert "datapathv2" in pod_network(tmp_path).sentence


@pytest.mark.parametrize(
    ("name", "image", "old"),
    [
        ("terway", "registry/acs/terway:v1.9.16", False),
        ("terway", "registry/acs/terway:v1.9.15", True),
        ("terway", "registry/acs/terway:v1.14.0", False),
        ("csi-plugin", "registry:5000/acs/csi-plugin:v1.33.3-884df97-aliyun", False),
        ("csi-plugin", "registry/acs/csi-plugin:v1.30.3-921e63a-aliyun", True),
        ("logtail", "registry/acs/logtail-ds:v2.1.13.0-3cc9c85-aliyun", True),
        ("metrics-server", "registry/acs/metrics-server:v0.3.9.7-85b3699-aliyun", False),
        ("metrics-server", "registry/acs/metrics-server:v0.3.9.6-aliyun", True),
        ("metrics-server", "registry/acs/metrics-server:latest", True),
        ("flexvolume", "registry/acs/flexvolume:v1.20", True),
        ("app", "registry/team/app:v0.0.1", False),
    ],
)
def test_a_component_older_than_its_minimum_is_named(name: str, image: str, old: bool) -> None:
    finding = judge_components({(name, image)})
    assert (finding.state == "warn") == old
    if old:
        assert image.rpartition("/")[2].partition(":")[0] in finding.sentence


def test_images_of_running_containers_are_asked_of_crictl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = [
        {"metadata": {"name": "terway"}, "image": {"image": "sha256:a"}, "imageRef": "sha256:a"},
        {
            "metadata": {"name": "csi-plugin"},
            "image": {"image": "sha256:b", "userSpecifiedImage": "registry/acs/csi-plugin:v1.30.0"},
            "imageRef": "registry/acs/csi-plugin@sha256:b",
        },
    ]
    images = [
        {"id": "sha256:a", "repoTags": ["registry/acs/terway:v1.9.0"]},
        {"id": "sha256:c", "repoTags": ["registry/acs/metrics-server:v0.1.0"]},  # does not run
    ]
    (tmp_path / "ps").write_text(json.dumps({"containers": containers}))
    (tmp_path / "images").write_text(json.dumps({"images": images, "padding": "x" * 10000}))
    program = tmp_path / "crictl"
    program.write_text(f'#!/bin/sh\necho "time=now level=warning msg=slow" >&2\ncat "{tmp_path}/$1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = kubernetes.components()
    assert finding.state == "warn"
    assert "terway v1.9.0 (older than 1.9.16)" in finding.sentence
    assert "csi-plugin v1.30.0" in finding.sentence
    assert "metrics-server" not in finding.sentence
    program.write_text("#!/bin/sh\necho cannot connect >&2\nexit 1\n")
    assert kubernetes.components().state == "unknown"


@given(st.text())
def test_no_configuration_of_a_network_breaks_the_check(text: str) -> None:
    assert judge_network(text).slug == "pod-network"
