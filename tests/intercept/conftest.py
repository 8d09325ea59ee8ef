"""Redirects in a network namespace of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netns import own_network


@pytest.fixture
def network() -> Iterator[None]:
    with own_network():
        yield
