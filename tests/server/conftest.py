from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.server.notify import Notifier
from manager import Manager, service_manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """The service manager whom the daemon tells how it is."""
    with service_manager(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(manager.address)
    yield notifier
    notifier.close()
