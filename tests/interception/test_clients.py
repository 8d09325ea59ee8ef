"""Programs with the address built in, unchanged: each arrives at the proxy, known for what it spoke."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from cloud import SERVICE6, Lab, heard
from imds_proxy.demo.clients import make_clients
from proxy import Proxy

ITEM = "/latest/meta-data/ram/security-credentials/demo-role"
METHODS = ("nftables", "ebpf")
pytestmark = pytest.mark.clients


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imds-proxy" / "tests"


def sessions(daemon: Proxy) -> Counter[str]:
    """What kinds of sessions a daemon that has ended saw."""
    kinds: Counter[str] = Counter()
    for event in daemon.log():
        if event["event"] == "caller-summary":
            kinds.update(event["sessions"])
    return kinds


@pytest.mark.parametrize("method", METHODS)
def test_curl_and_the_official_sdks_old_and_new_obtain_credentials(lab: Lab, method: str) -> None:
    clients = make_clients(cache())
    without = {client.name: lab.host.client(*client.command).returncode == 0 for client in clients}
    assert without == {client.name: client.hardened for client in clients}, "the service is hardened-only"
    with lab.daemon("--intercept", settings={"intercept": {"method": method}}) as daemon:
        for client in clients:
            done = lab.host.client(*client.command)
            assert done.returncode == 0, f"{client.name}: {done.stderr}"
            assert "AccessKeyId" in done.stdout
        assert daemon.stop() == 0
        kinds = sessions(daemon)
        named = {event["exe"] for event in daemon.log() if event["event"] == "legacy-caller"}
    assert kinds["legacy"] >= sum(not client.hardened for client in clients)
    assert kinds["hardened"] >= sum(client.hardened for client in clients)
    assert any("curl" in exe for exe in named)
    assert None not in named


@pytest.mark.parametrize("method", METHODS)
def test_every_spelling_of_the_address_is_redirected(lab: Lab, method: str) -> None:
    """A client resolves its spelling before it connects (ATTACKS 32); its Host is another matter."""
    spellings = (
        f"[{SERVICE6}]",
        "[::ffff:100.100.100.200]",
        "1684301000",
        "0x646464c8",
        "0144.0144.0144.0310",
    )
    with lab.daemon("--intercept", settings={"intercept": {"method": method}}) as daemon:
        for address in spellings:
            url = f"http://{address}/latest/meta-data/instance-id"
            got = heard(lab.host, url, "-H", "Host: 100.100.100.200")
            assert (got.status, got.body) == (200, "i-bp1emulated0000000001"), address
        assert daemon.stop() == 0
        assert sessions(daemon)["legacy"] == len(spellings)
