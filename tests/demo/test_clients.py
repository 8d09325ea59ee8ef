"""The demo's clients and their environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from imds_proxy.demo.clients import Client, Missing, call, client_environment, make_clients, release


def test_clients_run_without_http_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    assert not [name for name in client_environment(tmp_path, None) if name.lower().endswith("_proxy")]


def test_without_curl_the_demo_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="apt-get install curl"):
        make_clients(tmp_path)


def test_a_client_that_fails_is_told_by_its_last_words() -> None:
    failing = Client("x", ("/bin/sh", "-c", "echo no >&2; exit 3"), False)
    assert call(failing, {}, None) == (False, "no")


@pytest.mark.parametrize("left", ["1.0.12.dist-info", "1.0.12-py3.11.egg-info"])
def test_the_release_of_an_sdk_is_told_however_it_was_installed(tmp_path: Path, left: str) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    for name in (f"alibabacloud_credentials-{left}", "alibabacloud_credentials_api-9.9.dist-info"):
        (packages / name).mkdir(parents=True)
    assert release(tmp_path) == "1.0.12"
