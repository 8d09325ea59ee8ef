"""The metrics' names are a contract: conventional, documented, bounded."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imds_proxy.config import Config
from imds_proxy.server.build import build
from imds_proxy.server.log import Log
from imds_proxy.server.metrics import NoLibrary, render
from imds_proxy.server.snapshot import Snapshot, snapshot_of

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.fixture(scope="module")
def now() -> Snapshot:
    daemon = build(Config(attribution="procfs"), Log("json"))
    daemon.attribution.close()
    return snapshot_of(daemon, True)


@pytest.fixture(scope="module")
def text(now: Snapshot) -> str:
    return render(now).decode()


def test_the_page_is_what_prometheus_reads_and_every_metric_has_help(text: str) -> None:
    families = {one.name: one for one in text_string_to_metric_families(text)}
    ours = {name for name in families if name.startswith("imds_proxy_")}
    assert {"imds_proxy_requests", "imds_proxy_upstream_up", "imds_proxy_redirect_in_force"} <= ours
    assert {"process_resident_memory_bytes", "process_open_fds"} <= families.keys() - ours
    for name in ours:
        assert families[name].documentation.endswith(".")
        assert re.fullmatch(r"imds_proxy_[a-z]+(_[a-z]+)*", name)


def test_the_series_are_bounded_and_preset(text: str) -> None:
    series = [line for line in text.splitlines() if line.startswith("imds_proxy_")]
    assert 150 < len(series) < 400
    requests = [line for line in series if line.startswith("imds_proxy_requests_total")]
    assert len(requests) == 4 * 11 * 4
    assert all(line.endswith(" 0.0") for line in requests)


def test_every_metric_stands_in_the_readme(text: str) -> None:
    readme = README.read_text()
    names = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line.startswith("imds_proxy_")}
    assert {name for name in names if f"`{name}" not in readme} == set()


def test_what_is_not_known_has_no_metric(now: Snapshot) -> None:
    assert b"imds_proxy_credentials_expiry" not in render(now)


def test_without_the_library_it_says_so(now: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NoLibrary):
        render(now)
