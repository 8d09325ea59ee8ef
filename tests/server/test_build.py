"""The daemon's parts: which Host values a connection may carry, and what is built from a configuration."""

from __future__ import annotations

import dataclasses
import io
import socket
from pathlib import Path

import pytest

from imds_proxy.config import Config
from imds_proxy.server.build import boottime, build
from imds_proxy.server.log import Log
from imds_proxy.server.tokendesk import RealTokens, SealedTokens


@pytest.mark.parametrize(("tokens", "kind"), [("real", RealTokens), ("sealed", SealedTokens)])
def test_the_kind_of_tokens_is_as_configured(tokens: str, kind: type, tmp_path: Path) -> None:
    log = Log("json", io.StringIO())
    daemon = build(dataclasses.replace(Config(), tokens=tokens, state=tmp_path), log)  # type: ignore[arg-type]
    assert isinstance(daemon.tokens, kind)
    assert b"100.100.100.200" in daemon.shared.hosts(None)  # an event loop may give no address
    daemon.attribution.close()
    log.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_hosts_are_the_services_the_address_connected_to_and_configured_ones(
    family: socket.AddressFamily,
) -> None:
    log = Log("json", io.StringIO())
    daemon = build(dataclasses.replace(Config(), hosts=("metadata.internal",)), log)
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        hosts = daemon.shared.hosts(server.getsockname())
    own = "127.0.0.1" if family == socket.AF_INET else "[::1]"
    for good in ("100.100.100.200", "100.100.100.200:80", "[fd00:100::100:200]", f"{own}:{port}"):
        assert good.encode() in hosts
    assert b"metadata.internal" in hosts
    for bad in ("100.100.100.200:81", "100.100.100.200.", "evil.example", "0x64646464", "", own):
        assert bad.encode() not in hosts
    daemon.attribution.close()
    log.close()


def test_the_clock_counts_on_through_suspension() -> None:
    assert boottime() > 0
