"""The section `pods` of the configuration."""

from __future__ import annotations

import pytest

from imds_proxy.config import ConfigErrors, parse
from imds_proxy.config_pods import Pods


def refused(text: str) -> str:
    with pytest.raises(ConfigErrors) as found:
        parse(text, "f")
    return str(found.value.errors[0])


def test_by_default_no_pod_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-7")
    assert Pods() == parse("", "f").pods
    assert (Pods().networks, Pods().names) == (False, "none")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert Pods().api_address() == ("fd00::1", 6443)
    assert Pods().node_name() == parse("pods: {names: api}", "f").pods.node_name() == "node-7"


@pytest.mark.parametrize(
    ("api", "address"),
    [
        ("kubernetes.default.svc:443", ("kubernetes.default.svc", 443)),
        ("kubernetes.default.svc", ("kubernetes.default.svc", 443)),
        ('"10.0.0.1:6443"', ("10.0.0.1", 6443)),
        ('"[fd00::1]:6443"', ("fd00::1", 6443)),
        ('"[fd00::1]"', ("fd00::1", 443)),
    ],
)
def test_the_api_server_is_a_host_and_a_port(api: str, address: tuple[str, int]) -> None:
    assert parse(f"pods: {{names: api, node: n, api: {api}}}", "f").pods.api_address() == address


def test_a_configuration_for_pods_is_whole_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    pods = parse("pods: {names: api}", "f").pods
    assert (pods.node_name(), pods.api_address()) == ("", ("", 443))
    monkeypatch.setenv("NODE_NAME", "a,metadata.name=b")
    assert pods.node_name() == ""
    assert parse("pods: {node: n1}", "f").pods.node_name() == "n1"


def test_a_node_has_a_name_as_kubernetes_gives_them() -> None:
    assert "is no node" in refused("pods: {node: 'a,metadata.name=b'}")
    assert "true or false" in refused("pods: {networks: perhaps}")
    assert "none | api" in refused("pods: {names: kubelet}")


@pytest.mark.parametrize("pods", ["networks: true", "names: api"])
def test_workers_name_no_callers_in_pods_yet(pods: str) -> None:
    with pytest.raises(ConfigErrors, match="only 1 is allowed"):
        parse(f"workers: 2\npods: {{{pods}}}\n", "config.yaml")
    assert parse(f"workers: 1\npods: {{{pods}}}\n", "config.yaml").workers == 1


@pytest.mark.parametrize("count", ["0", "65", "many", "-1"])
def test_workers_are_1_to_64(count: str) -> None:
    with pytest.raises(ConfigErrors, match="workers"):
        parse(f"workers: {count}\n", "config.yaml")
