"""A daemon before a service that accepts hardened mode only; attacks and what came of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy, running_proxy


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator(settings=Settings(http_tokens="required")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def proxy(service: Emulator) -> Iterator[Proxy]:
    with running_proxy(service.address) as running:
        yield running


@pytest.fixture(scope="module")
def token(proxy: Proxy) -> bytes:
    return proxy.put_token(21600).body
