"""The manifests: valid for Kubernetes' own schemas, and no more privileged than they say."""

from __future__ import annotations

import shutil
from typing import Any

import kubernetes_validate
import pytest
import yaml

from imds_proxy.config import parse
from manifests import KUBERNETES, Resource, container, kustomized, one, pod_spec

BUILT = ["daemonset", "examples/ack", "examples/sidecar"]
VERSIONS = ["1.29", "1.37"]  # native sidecars began with 1.29
POD_MONITOR = "monitoring.coreos.com/v1"  # no kind of Kubernetes itself
WORKLOADS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "Pod": "v1",
}


def workload(kind: str) -> Resource:
    spec: dict[str, Any] = {
        "initContainers": [{"name": "migrate", "image": "app"}],
        "containers": [{"name": "app", "image": "app"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    template: dict[str, Any] = {"metadata": {"labels": {"app": "app"}}, "spec": spec}
    if kind in {"Job", "CronJob"}:
        spec["restartPolicy"] = "Never"
    body: dict[str, Any] = {"template": template}
    if kind in {"Deployment", "StatefulSet", "DaemonSet"}:
        body["selector"] = {"matchLabels": {"app": "app"}}
    if kind == "StatefulSet":
        body["serviceName"] = "app"
    if kind == "CronJob":
        body = {"schedule": "* * * * *", "jobTemplate": {"spec": body}}
    if kind == "Pod":
        body = spec
    return {"apiVersion": WORKLOADS[kind], "kind": kind, "metadata": {"name": "app"}, "spec": body}


@pytest.fixture(scope="module", params=WORKLOADS)
def with_sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Resource:
    """A workload of each kind with the component added."""
    tmp_path = tmp_path_factory.mktemp("app")
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(workload(request.param)))
    shutil.copytree(KUBERNETES / "components", tmp_path / "components")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["app.yaml"],
        "components": ["components/sidecar", "components/process-names"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return one(kustomized(tmp_path), request.param)


@pytest.fixture
def on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the manifest sets."""
    monkeypatch.setenv("NODE_NAME", "cn-hangzhou.10.0.0.1")


def validate(resource: Resource, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("directory", BUILT)
def test_each_kustomization_is_valid_for_the_schemas_of_kubernetes(directory: str, version: str) -> None:
    resources = kustomized(KUBERNETES / directory)
    known = [resource for resource in resources if resource["apiVersion"] != POD_MONITOR]
    assert len(known) >= 3
    for resource in known:
        validate(resource, version)


def test_a_resource_that_is_wrong_is_not_valid() -> None:
    daemonset = one(kustomized(KUBERNETES / "daemonset"), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(daemonset, VERSIONS[-1])


def test_the_pod_monitor_finds_the_agents_port() -> None:
    resources = kustomized(KUBERNETES / "daemonset")
    monitor, daemonset = one(resources, "PodMonitor"), one(resources, "DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in container(pod_spec(daemonset), "imds-proxy")["ports"]}
    assert endpoint["port"] in ports


def test_the_component_adds_the_same_to_every_kind_of_workload(with_sidecar: Resource) -> None:
    validate(with_sidecar, VERSIONS[-1])
    spec = pod_spec(with_sidecar)
    assert [one_["name"] for one_ in spec["initContainers"]] == [
        "imds-proxy-intercept",
        "imds-proxy",
        "migrate",
    ], "the redirect, then the proxy, then whatever the application does first"
    assert container(spec, "imds-proxy")["restartPolicy"] == "Always"
    assert spec["shareProcessNamespace"] is True
    assert {volume["name"] for volume in spec["volumes"]} > {"data", "imds-proxy-config"}
    deployment = kustomized(KUBERNETES / "examples/sidecar")
    for name in ("imds-proxy-intercept", "imds-proxy"):
        there = container(pod_spec(one(deployment, "Deployment")), name)
        assert container(spec, name) | {"image": ""} == there | {"image": ""}


def test_only_the_init_container_may_change_the_network(with_sidecar: Resource) -> None:
    spec = pod_spec(with_sidecar)
    added = {
        one_["name"]: set(one_.get("securityContext", {}).get("capabilities", {}).get("add", []))
        for one_ in [*spec["initContainers"], *spec["containers"]]
    }
    assert added == {
        "imds-proxy-intercept": {"NET_ADMIN"},
        "imds-proxy": {"SETUID", "SETGID", "SYS_PTRACE", "DAC_READ_SEARCH"},
        "migrate": set(),
        "app": set(),
    }


@pytest.mark.parametrize("name", ["imds-proxy-intercept", "imds-proxy"])
def test_the_added_containers_are_locked_down_and_bounded(with_sidecar: Resource, name: str) -> None:
    added = container(pod_spec(with_sidecar), name)
    context = added["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert set(added["resources"]) == {"requests", "limits"}
    assert "cpu" not in added["resources"]["limits"], "a throttled proxy misses its callers' second"


def test_the_sidecar_is_probed_where_it_serves(with_sidecar: Resource) -> None:
    sidecar = container(pod_spec(with_sidecar), "imds-proxy")
    for probe in ("startupProbe", "livenessProbe"):
        assert sidecar[probe]["httpGet"]["path"] == "/healthz"
    assert "readinessProbe" not in sidecar


def test_the_sidecar_fails_closed_as_the_manifest_says_and_runs_as_the_exempt_user() -> None:
    resources = kustomized(KUBERNETES / "examples/sidecar")
    config = parse(one(resources, "ConfigMap")["data"]["config.yaml"], "config.yaml")
    assert config.intercept.on_failure == "closed"
    template = one(resources, "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"]["imds-proxy/on-failure"] == "closed"
    assert str(config.intercept.exempt_uid) == config.user == "64200"
    assert all(address.port >= 1024 for address in config.intercept.address), "it may bind no other"


@pytest.mark.usefixtures("on_a_node")
@pytest.mark.parametrize("directory", ["daemonset", "examples/ack"])
def test_the_node_agent_is_on_the_hosts_network_and_everywhere(directory: str) -> None:
    resources = kustomized(KUBERNETES / directory)
    daemonset = one(resources, "DaemonSet")
    spec = pod_spec(daemonset)
    assert spec["hostNetwork"] is True
    assert {"operator": "Exists"} in spec["tolerations"]
    assert spec["priorityClassName"] == one(resources, "PriorityClass")["metadata"]["name"]
    assert one(resources, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]
    config = parse(one(resources, "ConfigMap")["data"]["config.yaml"], "config.yaml")
    assert config.intercept.forwarded
    assert config.intercept.on_failure == "open"
    assert daemonset["spec"]["template"]["metadata"]["annotations"]["imds-proxy/on-failure"] == "open"
    added = container(spec, "imds-proxy")["securityContext"]["capabilities"]["add"]
    assert ("SYS_ADMIN" in added) is config.pods.networks  # else nothing there needs so much
    for capability in added:
        assert capability in (KUBERNETES / "daemonset/daemonset.yaml").read_text().split("runAsUser")[0], (
            "each capability has its reason"
        )


@pytest.mark.usefixtures("on_a_node")
def test_rules_for_acks_components_name_their_pods() -> None:
    text = one(kustomized(KUBERNETES / "examples/ack"), "ConfigMap")["data"]["config.yaml"]
    rules = parse(text, "config.yaml").policy.rules
    assert len(rules) > 4
    assert rules[-1].allow is False
