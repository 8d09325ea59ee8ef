"""A host full of clients: each is named with its version and a correct fix; none missing, none invented."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hostclients import HostClient, host_clients
from lab import Lab

pytestmark = [pytest.mark.clients, pytest.mark.root]


@pytest.fixture(scope="module")
def clients(cache: Path, sdks: Any, tmp_path_factory: pytest.TempPathFactory) -> list[HostClient]:
    return list(host_clients(cache, tmp_path_factory.mktemp("host"), sdks.node))


@pytest.fixture(scope="module")
def said(
    lab: Lab, clients: list[HostClient], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the log says at the end of each caller's client, after every client ran twice."""
    state = tmp_path_factory.mktemp("state")
    with lab.proxy(state=str(state)) as sessions:
        for _ in range(2):
            for client in clients:
                done = lab.run(*client.words)
                assert done.returncode == 0 or "no-such-role" in client.words, (client.label, done.stderr)
    latest: dict[str, dict[str, Any]] = {}
    for event in sessions.events:
        if event["event"] == "client":
            latest[f"{event.get('exe')} {event.get('script')}"] = event
    assert not [event for event in sessions.events if event["event"] == "client-look-hangs"]
    with sqlite3.connect(state / "ledger.db") as ledger:
        kept = ledger.execute("SELECT count(*) FROM callers WHERE client IS NOT NULL").fetchone()
    assert kept == (len(latest),)
    return list(latest.values())


def test_each_client_is_named_with_its_version_and_place(
    said: list[dict[str, Any]], clients: list[HostClient]
) -> None:
    found = {(one["client"]["name"], one["client"]["version"], one["client"]["where"]) for one in said}
    assert found == {(one.name, one.version, one.where) for one in clients}


def test_each_gets_a_fix_that_a_developer_can_act_on(
    said: list[dict[str, Any]], clients: list[HostClient]
) -> None:
    for client in clients:
        names = (client.name, client.version, client.where)
        (one,) = (
            each
            for each in said
            if (each["client"]["name"], each["client"]["version"], each["client"]["where"]) == names
        )
        for part in client.advice:
            assert part in one["advice"], client.label
        for part in client.never:
            assert part not in one["advice"], client.label


def test_probes_are_told_apart_from_what_reads_credentials(said: list[dict[str, Any]]) -> None:
    reads = {one["client"]["name"]: one["credentials"] for one in said}
    assert reads["curl"] is False
    assert reads["aliyun-python-sdk-core"] is True
