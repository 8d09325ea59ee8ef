"""Callers in parallel while the service restarts, revokes tokens and resets connections.

No request fails but those that were in flight on a connection that was cut.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import TOKEN_HEADER, Proxy, running_proxy

ITEMS = ("mac", "hostname", "region-id", "zone-id", "serial-number", "vpc-id", "image-id", "network-type")
SECONDS = 6.0


@dataclass
class Caller:
    """One thread that asks on, half of its calls in hardened mode; what it was answered, and when."""

    proxy: Proxy
    item: str
    stop: threading.Event
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[tuple[float, int]] = field(default_factory=list)

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.proxy.host, self.proxy.port, timeout=5)
        path = f"/latest/meta-data/{self.item}"
        turn = 0
        while not self.stop.is_set():
            turn += 1
            headers = {}
            if turn % 2:
                # As the official SDKs do: a token for each call.
                token = self._ask(connection, "PUT", "/latest/api/token", {TTL: "60"})
                if token is None:
                    continue
                headers = {TOKEN_HEADER: token}
            self._ask(connection, "GET", path, headers)
            time.sleep(0.002)
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]
    ) -> str | None:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        self.statuses[response.status] += 1
        if response.status == 200:
            return body
        self.failures.append((time.monotonic(), response.status))
        return None


TTL = "X-aliyun-ecs-metadata-token-ttl-seconds"


@pytest.mark.slow
def test_disturbances_of_the_service_cost_no_more_than_what_was_in_flight() -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address) as proxy,
    ):
        assert proxy.get("/latest/meta-data/mac").status == 200
        stop = threading.Event()
        callers = [Caller(proxy, item, stop) for item in ITEMS]
        threads = [threading.Thread(target=caller.run) for caller in callers]
        for thread in threads:
            thread.start()

        def restart() -> None:
            service.stop()
            service.start()

        disturbances = (service.reset_connections, restart)
        cuts = 0
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.2)
            disturbances[cuts % len(disturbances)]()
            cuts += 1
        stop.set()
        for thread in threads:
            thread.join(10)
    answered = sum(sum(caller.statuses.values()) for caller in callers)
    failed = [failure for caller in callers for failure in caller.failures]
    assert answered > 1000
    # Each caller has one request in flight at most, so a cut costs at most one for each of them.
    assert len(failed) <= cuts * len(callers)
    # And in fact next to none: what meets a cut before its first byte is asked again.
    assert len(failed) <= answered * 0.01
    assert all(status in (502, 503) for _, status in failed)


@pytest.mark.slow
def test_revoked_tokens_cost_nobody_who_does_not_hold_one() -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address) as proxy,
    ):
        failed: list[int] = []
        stop = threading.Event()

        def ask_on(item: str) -> None:
            connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)
            while not stop.is_set():
                connection.request("GET", f"/latest/meta-data/{item}")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    failed.append(response.status)
            connection.close()

        threads = [threading.Thread(target=ask_on, args=(item,)) for item in ITEMS]
        for thread in threads:
            thread.start()
        puts = service.counters().token_puts
        for _ in range(8):
            time.sleep(0.4)
            service.revoke_tokens()
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join(10)
        assert failed == []
        assert service.counters().token_puts - puts <= 9  # one refresh each, however many saw the 401
