from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube_api import KubeApi, kube_api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with kube_api(tmp_path / "account", socket.create_server(("127.0.0.1", 0))) as serving:
        yield serving
