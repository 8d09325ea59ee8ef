"""Monitoring of a real daemon: its three pages, while the service comes and goes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.server.fleet import wait_before_asking
from proxy import Proxy, Reply, ask, running_proxy

MONITORED = {"admin": {"metrics": "127.0.0.1:0"}}


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def visit(proxy: Proxy, path: str) -> Reply:
    host, _, port = proxy.admin.rpartition(":")
    return ask(host, int(port), "GET", path)


def value(proxy: Proxy, series: str) -> float:
    text = visit(proxy, "/metrics").body.decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_a_scrape_tells_what_happened_and_nothing_of_who_or_what() -> None:
    with Emulator() as service, running_proxy(service.address, MONITORED) as proxy:
        role = "/latest/meta-data/ram/security-credentials/demo-role"
        for _ in range(3):
            assert proxy.get(role).status == 200
        assert proxy.request("GET", "/latest/user-data", {"X-Forwarded-For": "1.2.3.4"}).status == 403
        token = proxy.put_token().body.decode()
        text = visit(proxy, "/metrics").body.decode()
        series = 'imds_proxy_requests_total{item="credentials",outcome="allowed",session="legacy"}'
        assert re.search(rf"^{re.escape(series)} 3.0$", text, re.MULTILINE), text
        assert value(proxy, 'imds_proxy_refusals_total{slug="relayed"}') == 1
        assert value(proxy, 'imds_proxy_cache_total{result="hit"}') == 2
        assert value(proxy, "imds_proxy_legacy_callers") == 1
        assert value(proxy, "imds_proxy_credentials_expiry_timestamp_seconds") > time.time() + 3600
        for secret in ("demo-role", token, "STS.", "1.2.3.4"):
            assert secret not in text


def test_ready_follows_the_service_without_asking_it_and_alive_does_not() -> None:
    with Emulator() as service, running_proxy(service.address, MONITORED) as proxy:
        wait_for(lambda: visit(proxy, "/readyz").status == 200)
        before = service.counters()
        for _ in range(20):
            visit(proxy, "/readyz")
        assert service.counters() == before
        service.stop()
        assert proxy.get("/latest/meta-data/mac").status >= 500
        said = visit(proxy, "/readyz")
        assert said.status == 503
        assert "cannot be reached" in json.loads(said.body)["reasons"][0]
        assert value(proxy, "imds_proxy_upstream_up") == 0
        assert visit(proxy, "/healthz").status == 200


@pytest.mark.parametrize(
    ("answers", "idle", "wait"),
    [(True, 10, 20), (True, 30, 0), (False, 0, 2), (False, 2, 0), (None, 2, 0)],
)
def test_the_service_is_asked_in_the_background_only_when_nobody_else_does(
    answers: bool | None, idle: float, wait: float
) -> None:
    assert wait_before_asking(answers, idle) == wait


def test_a_port_in_use_is_said_and_the_daemon_serves() -> None:
    with (
        Emulator() as service,
        running_proxy(service.address, MONITORED) as first,
        running_proxy(service.address, {"admin": {"metrics": first.admin}}) as second,
    ):
        assert second.get("/latest/meta-data/mac").status == 200
        assert any(line["event"] == "no-metrics-port" for line in second.log())
