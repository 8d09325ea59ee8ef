"""A host, and beyond a veth a cloud whose service accepts hardened mode only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud import Lab, cloud_and_host


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cloud_and_host("--http-tokens", "required", "--role", "demo-role") as made:
        yield made


@pytest.fixture(autouse=True)
def _no_address_of_a_killed_daemon(lab: Lab) -> Iterator[None]:
    """Else it would go by itself, in the middle of another test."""
    yield
    lab.host.ip("-4 addr flush to 169.254.100.200 dev lo")
    lab.host.ip("-6 addr flush to fd64:64c8::200 dev lo")
