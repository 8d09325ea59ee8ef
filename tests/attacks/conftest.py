"""A daemon before a service that accepts hardened mode only; attacks and what came of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy, running_proxy


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator(settings=Settings(http_tokens="required")) as emulator:
        yield emulator


POLICIES: dict[str, dict[str, object]] = {
    "defaults": {},
    # Rules that allow these tests' own callers everything: what is refused is so for its form.
    "rules": {
        "enforcement": "enforce",
        "default": "deny",
        "rules": [
            {"name": "nobody", "caller": {"uid": "4294967294"}, "allow": False},
            {"name": "these tests", "caller": {"uid": str(os.geteuid())}, "legacy": "upgrade"},
        ],
    },
}


@pytest.fixture(scope="module", params=POLICIES)
def proxy(service: Emulator, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with running_proxy(service.address, {"policy": POLICIES[request.param]}) as running:
        yield running


@pytest.fixture(scope="module")
def token(proxy: Proxy) -> bytes:
    return proxy.put_token(21600).body
