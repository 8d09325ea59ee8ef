"""What is shown to the outside, from a daemon that served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest

from imds_proxy.config import Config
from imds_proxy.errors import REFUSALS, UNREACHABLE, Refused
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import Daemon, build
from imds_proxy.server.log import Log
from imds_proxy.server.snapshot import DECISIONS, Snapshot, snapshot_of, unready


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = build(Config(attribution="procfs"), Log("json"))
    yield daemon
    daemon.attribution.close()


def test_every_count_is_there_from_the_start_and_is_nothing(daemon: Daemon) -> None:
    now = snapshot_of(daemon, None)
    assert set(now.requests) == {(s, i, d) for s in Session for i in ItemClass for d in DECISIONS}
    assert set(now.refusals) == {one.slug for one in REFUSALS}
    for counts in (now.requests, now.refusals, now.would_refuse, now.upstream):
        assert set(counts.values()) == {0}
    assert now.credentials_expire is None


def test_a_snapshot_holds_numbers_and_names_of_ours_only(daemon: Daemon) -> None:
    now = snapshot_of(daemon, True)
    for one in fields(Snapshot):
        value = getattr(now, one.name)
        assert isinstance(value, dict | int | float | bool | None), one.name


def test_ready_means_that_the_service_answered_last_and_the_redirect_is_in_force(daemon: Daemon) -> None:
    assert unready(daemon, None) == ["the metadata service was not asked yet"]
    daemon.traffic.failed("GET", Refused(UNREACHABLE, "ECONNREFUSED"))
    assert unready(daemon, None) == ["the metadata service cannot be reached (ECONNREFUSED)"]
    daemon.traffic.answered("GET", 200)
    assert unready(daemon, None) == [] == unready(daemon, True)
    assert unready(daemon, False) == ["the redirect is not in force"]
