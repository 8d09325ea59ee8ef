"""Tokens that are forged, cut, old, another machine's or made up in a stream (ATTACKS 30, 30a); row 35."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import TOKEN_HEADER, Proxy, running_proxy

MAC = "/latest/meta-data/mac"


def forgeries(token: str) -> list[str]:
    middle = len(token) // 2
    other = "A" if token[middle] != "A" else "B"
    return [
        token[:-3],
        token + "x",
        token[:middle] + other + token[middle + 1 :],
        token.swapcase(),
        "x",
        "=" * 56,
    ]


@pytest.mark.parametrize("tokens", ["real", "sealed"])
def test_30_a_forged_or_cut_token_is_refused(service: Emulator, tokens: str) -> None:
    with running_proxy(service.address, {"tokens": tokens}) as proxy:
        token = proxy.put_token(60).body.decode()
        assert proxy.get(MAC, token).status == 200
        for forged in forgeries(token):
            refused = proxy.get(MAC, forged)
            assert (refused.status, refused.headers["x-imds-proxy"]) == (401, "token-invalid")
        assert proxy.get(MAC, token).status == 200


@pytest.mark.parametrize("tokens", ["real", "sealed"])
def test_30_a_token_is_refused_when_its_time_is_over_and_after_a_restart_too(
    service: Emulator, tmp_path: Path, tokens: str
) -> None:
    with running_proxy(service.address, {"tokens": tokens}, state=tmp_path) as proxy:
        token = proxy.put_token(1).body.decode()
        assert proxy.get(MAC, token).status == 200
        time.sleep(1.1)
        assert proxy.get(MAC, token).status == 401
    # The real token lives on upstream, where more life was asked for; the grant is what counts.
    with running_proxy(service.address, {"tokens": tokens}, state=tmp_path) as proxy:
        if tokens == "sealed":
            assert proxy.get(MAC, token).status == 401


def test_30_a_sealed_token_is_of_one_key(service: Emulator, tmp_path: Path) -> None:
    settings = {"tokens": "sealed"}
    with running_proxy(service.address, settings, state=tmp_path / "a") as proxy:
        token = proxy.put_token(600).body.decode()
    with running_proxy(service.address, settings, state=tmp_path / "b") as proxy:
        assert proxy.put_token(60).status == 200  # the seal is made
        assert proxy.get(MAC, token).status == 401


def test_30_a_sealed_token_of_an_image_clone_is_another_instances(tmp_path: Path) -> None:
    """The clone carries the key; its instance id is another."""
    settings = {"tokens": "sealed"}
    items = {"meta-data/instance-id": "i-first"}
    with (
        Emulator(settings=Settings(extra_items=items)) as first,
        running_proxy(first.address, settings, state=tmp_path) as proxy,
    ):
        token = proxy.put_token(600).body.decode()
        assert proxy.get(MAC, token).status == 200
    clone_settings = Settings(http_tokens="required", extra_items={"meta-data/instance-id": "i-clone"})
    with (
        Emulator(settings=clone_settings) as clone,
        running_proxy(clone.address, settings, state=tmp_path) as proxy,
    ):
        assert proxy.put_token(60).status == 200
        assert proxy.get(MAC, token).status == 401


def test_35_grants_of_another_boot_are_not_believed(tmp_path: Path) -> None:
    """An image clone with saved hashes: the service of the new instance knows nothing of the token."""
    with (
        Emulator(settings=Settings(http_tokens="required")) as first,
        running_proxy(first.address, state=tmp_path) as proxy,
    ):
        token = proxy.put_token(21600).body.decode()
    saved = tmp_path / "tokens.jsonl"
    head, *lines = saved.read_text().splitlines()
    assert lines, "the hash was saved"
    boot = json.loads(head) | {"boot": "00000000-0000-0000-0000-000000000000"}
    saved.write_text("\n".join([json.dumps(boot), *lines]) + "\n")
    with (
        Emulator(settings=Settings(http_tokens="required")) as clone,
        running_proxy(clone.address, state=tmp_path) as proxy,
    ):
        assert proxy.get(MAC, token).status == 401


def test_35_when_the_services_clock_jumps_there_is_one_refresh_and_no_loop() -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address) as proxy,
    ):
        assert proxy.get(MAC).status == 200
        before = service.counters().token_puts
        for hours in (8, -8, 24):
            service.patch(clock_offset=hours * 3600)
            for _ in range(20):
                assert proxy.get(MAC).status == 200
        assert service.counters().token_puts - before <= 3


def test_30a_made_up_tokens_cost_a_bounded_number_of_calls_and_harm_nobody_else(
    service: Emulator, proxy: Proxy
) -> None:
    token = proxy.put_token(600).body.decode()
    assert proxy.get(MAC, token).status == 200
    before = service.counters()
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)
    statuses = set()
    began = time.monotonic()
    for number in range(2000):
        connection.request("GET", MAC, headers={TOKEN_HEADER: f"made-up-{number}"})
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    seconds = time.monotonic() - began
    connection.close()
    after = service.counters()
    assert statuses == {401}
    assert after.v2_gets - before.v2_gets <= 5 + 0.2 * seconds + 1
    assert after.token_puts == before.token_puts
    assert proxy.get(MAC, token).status == 200
    assert proxy.get(MAC).status == 200
