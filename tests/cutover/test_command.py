"""The commands as a person runs them: the real SDK, an emulated API, a daemon, and a service that obeys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_api import EcsApi, serving_ecs
from imds_proxy.cli import main
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy, running_proxy

MAC = "/latest/meta-data/mac"


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(settings=Settings(http_tokens="optional")) as service:
        yield service


@pytest.fixture
def proxy(service: Emulator) -> Iterator[Proxy]:
    with running_proxy(service.address) as proxy:
        yield proxy


@pytest.fixture
def api(service: Emulator) -> Iterator[EcsApi]:
    """Setting HttpTokens there is seen at the service."""
    api = EcsApi({"i-a": {}}, on_change=lambda _, tokens: service.patch(http_tokens=tokens))
    with serving_ecs(api):
        yield api


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    path = tmp_path / "ready.json"
    path.write_text(json.dumps({"questions": {"required": {"verdict": "READY"}}}))
    return path


def cutover(api: EcsApi, proxy: Proxy, *more: object) -> int:
    words = ["--region", "cn-hangzhou", "--instance", "i-a", "--endpoint", api.endpoint, "-c", proxy.config]
    quick = ["--settle", "2s", "--watch", "400ms", "--every", "100ms"]
    return main(["cutover", *map(str, (*words, *quick, *more))])


def test_an_instance_is_cut_over_while_old_callers_go_on(api: EcsApi, proxy: Proxy, ready: Path) -> None:
    assert proxy.get(MAC).status == 200
    assert cutover(api, proxy, "--ready", ready) == 0
    assert api.changes() == [("i-a", "required")]
    assert proxy.get("/latest/meta-data/hostname").status == 200, "a plain GET, upgraded"
    assert main(["probe", "-c", str(proxy.config)]) == 0


def test_where_the_service_then_fails_callers_it_is_put_back(
    service: Emulator, api: EcsApi, proxy: Proxy, ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on_change = lambda _, tokens: service.patch(
        http_tokens=tokens, get_status=500 if tokens == "required" else None
    )
    assert cutover(api, proxy, "--ready", ready) == 1
    assert api.changes() == [("i-a", "required"), ("i-a", "optional")]
    assert "optional again" in capsys.readouterr().out


def test_without_a_verdict_or_with_gaps_nothing_is_touched(
    api: EcsApi, proxy: Proxy, ready: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cutover(api, proxy) == 1
    assert "no verdict" in capsys.readouterr().out
    counts = tmp_path / "counts.csv"
    counts.write_text("instanceId,Sum\ni-a,12\n")
    assert cutover(api, proxy, "--ready", ready, "--cloudmonitor", counts) == 1
    assert "gap: i-a: CloudMonitor counted 12" in capsys.readouterr().out
    assert cutover(api, proxy, "--ready", ready, "--dry-run") == 0
    assert api.changes() == []


def test_rollback_alone_needs_no_verdict(api: EcsApi, proxy: Proxy) -> None:
    api.instances["i-a"]["HttpTokens"] = "required"
    assert cutover(api, proxy, "--rollback") == 0
    assert api.instances["i-a"]["HttpTokens"] == "optional"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--instance", "no id"], "is no instance id"),
        (["--parallel", "0"], "1 to 20"),
        (["--tolerate", "-1"], "0 or more"),
        (["--instances", "/nonexistent"], "No such file"),
    ],
)
def test_wrong_usage_is_said(
    api: EcsApi, proxy: Proxy, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cutover(api, proxy, *more) == 2
    assert said in capsys.readouterr().err
    assert api.calls == []


def test_a_list_of_instances_may_have_comments(
    api: EcsApi, proxy: Proxy, ready: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names"
    names.write_text("# web tier\ni-a\n\ni-gone  # ended\n")
    assert cutover(api, proxy, "--ready", ready, "--instances", names, "--dry-run") == 1
    assert "i-gone: there is no such instance" in capsys.readouterr().out


def test_probe_tells_a_service_that_still_takes_plain_gets_and_one_that_is_gone(
    service: Emulator, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--json", "-c", str(proxy.config)]) == 1
    assert json.loads(capsys.readouterr().out) == {"v1": 200, "v2": 200, "failed": 0}
    service.stop()
    assert main(["probe", "-c", str(proxy.config)]) == 3
