from __future__ import annotations

from collections.abc import Iterator

import pytest

from crewed import crewed
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy


@pytest.fixture
def service() -> Iterator[Emulator]:
    """Accepts hardened mode only."""
    with Emulator(settings=Settings(http_tokens="required")) as emulator:
        yield emulator


@pytest.fixture
def proxy(service: Emulator) -> Iterator[Proxy]:
    with crewed(service) as one:
        yield one
