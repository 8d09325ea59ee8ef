"""A host full of clients: each is named with its version and a correct fix; none missing, none invented."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostclients import HostClient, host_clients
from lab import Lab
from observed import observable_lab, observing

pytestmark = [pytest.mark.clients, pytest.mark.root]


@pytest.fixture(scope="module")
def clients(cache: Path, sdks: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[HostClient]]:
    directory = tmp_path_factory.mktemp("host")
    yield list(host_clients(cache, directory, sdks.node))
    shutil.rmtree(directory)  # cloud-init writes down what it read, credentials too


@pytest.fixture(scope="module")
def state(lab: Lab, clients: list[HostClient], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a daemon that has seen every client run twice; its log is beside the ledger."""
    state = tmp_path_factory.mktemp("state")
    with lab.proxy(state=str(state)) as sessions:
        for _ in range(2):
            for client in clients:
                done = lab.run(*client.words)
                assert done.returncode == 0 or "no-such-role" in client.words, (client.label, done.stderr)
    (state / "daemon.log").write_text("".join(f"{json.dumps(event)}\n" for event in sessions.events))
    return state


@pytest.fixture(scope="module")
def observed(clients: list[HostClient], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a proxy: its calls were only watched."""
    directory = tmp_path_factory.mktemp("observed")
    with observable_lab() as lab, observing(lab, directory):
        for client in clients:
            done = lab.run(*client.words)
            assert done.returncode == 0 or "no-such-role" in client.words, (client.label, done.stderr)
    return directory


def report(*words: str) -> str:
    command = [sys.executable, "-m", "imds_proxy", "report", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(
    scope="module",
    params=[("state", "ledger.db"), ("state", "daemon.log"), ("observed", "ledger.db")],
    ids="-".join,
)
def callers(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the report says of them, from the ledger and from the log, and from one that only watched."""
    where, name = request.param
    return list(json.loads(report("--json", str(request.getfixturevalue(where) / name)))["callers"])


def key_of(client: dict[str, Any]) -> tuple[str | None, ...]:
    return client["name"], client["version"], client["where"]


def test_each_client_is_named_with_its_version_and_place(
    callers: list[dict[str, Any]], clients: list[HostClient]
) -> None:
    found = [key_of(caller["client"]) for caller in callers]
    assert sorted(found, key=str) == sorted(((one.name, one.version, one.where) for one in clients), key=str)


def test_each_gets_a_fix_that_a_developer_can_act_on(
    callers: list[dict[str, Any]], clients: list[HostClient]
) -> None:
    advice = {key_of(caller["client"]): caller["advice"] for caller in callers}
    for client in clients:
        said = advice[client.name, client.version, client.where]
        for part in client.advice:
            assert part in said, client.label
        for part in client.never:
            assert part not in said, client.label


def test_probes_are_told_apart_from_what_reads_credentials(callers: list[dict[str, Any]]) -> None:
    reads = {caller["client"]["name"]: caller["credentials"] for caller in callers}
    assert reads["curl"] is False
    assert reads["aliyun-python-sdk-core"] is True


def test_the_table_groups_them_by_fix(state: Path) -> None:
    table = report(str(state / "ledger.db"))
    assert "upgrade cloud-init to >= 23.2.2" in table
    assert "fetch a token in scripts that call curl" in table
    assert "These read no credentials:" in table
