"""The resolver and the watch that a configuration asks for."""

from __future__ import annotations

import io
import os

import pytest

from imds_proxy.config import Config, Pods
from imds_proxy.server.log import Log
from imds_proxy.server.naming import resolver_of, watch_of


@pytest.fixture
def log() -> Log:
    return Log("json")


def test_pods_are_watched_only_where_that_is_asked_for(log: Log) -> None:
    assert watch_of(Config(), log) is None
    assert watch_of(Config(pods=Pods(names="api", node="n1", api="kube")), log) is not None


@pytest.mark.parametrize(
    ("pods", "missing"),
    [(Pods(names="api", api="kube"), "NODE_NAME"), (Pods(names="api", node="n"), "KUBERNETES_SERVICE_HOST")],
)
def test_outside_of_a_cluster_it_says_what_is_missing(
    pods: Pods, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NODE_NAME", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    said = io.StringIO()
    log = Log("json", said)
    assert watch_of(Config(pods=pods), log) is None
    log.close()
    assert missing in said.getvalue()


def test_networks_are_followed_only_where_that_is_asked_for(log: Log) -> None:
    for wanted in (False, True):
        resolver = resolver_of(Config(attribution="procfs", pods=Pods(networks=wanted)), None, log)
        assert resolver.follows_networks is wanted
        resolver.tend()
        resolver.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_the_kernel_notes_is_used_where_it_can_be_had(log: Log) -> None:
    resolver_of(Config(attribution="auto"), None, log).close()
