"""What is kept, over real connections of several users: who is given it, who is not, and how it is told."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from places import curl
from proxy import Proxy, running_proxy

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
MAC = "/latest/meta-data/mac"
ALLOWED, DENIED, FRESH = 5701, 5702, 5703
RULES = [
    {
        "name": "never",
        "caller": {"uid": str(DENIED)},
        "paths": ["meta-data/ram/**", "user-data"],
        "allow": False,
    },
    {"name": "fresh", "caller": {"uid": str(FRESH)}, "paths": ["meta-data/**"], "cache": False},
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users")


@contextmanager
def both(settings: dict[str, Any] | None = None) -> Iterator[tuple[Emulator, Proxy]]:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, settings) as proxy,
    ):
        yield service, proxy


def reads(service: Emulator, path: str) -> int:
    return service.counters().by_path.get(path, 0)


@pytest.mark.root
@needs_root
def test_what_one_caller_may_read_and_is_kept_is_not_given_to_one_who_may_not() -> None:
    with both({"policy": {"enforcement": "enforce", "rules": RULES}}) as (service, proxy):
        for _ in range(3):
            assert curl(proxy.port, ROLE, uid=ALLOWED)[0] == 200
            status, body = curl(proxy.port, ROLE, uid=DENIED)
            assert (status, "AccessKeySecret" in body) == (403, False)
        assert reads(service, ROLE) == 1


@pytest.mark.root
@needs_root
def test_a_rule_that_wants_no_kept_answers_asks_the_service_each_time_and_others_profit() -> None:
    with both({"policy": {"enforcement": "enforce", "rules": RULES}}) as (service, proxy):
        for number in range(3):
            assert curl(proxy.port, MAC, uid=FRESH)[0] == 200
            assert curl(proxy.port, MAC, uid=ALLOWED)[0] == 200
            assert reads(service, MAC) == number + 1


def test_an_answer_known_by_heart_ends_with_the_rule_that_allowed_it() -> None:
    with both() as (service, proxy):
        wire = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)

        def ask() -> int:
            wire.request("GET", ROLE)
            answer = wire.getresponse()
            answer.read()
            return answer.status

        assert [ask() for _ in range(5)] == [200] * 5
        rule = {"name": "no", "allow": False, "paths": ["meta-data/ram/**"]}
        proxy.change(policy={"enforcement": "enforce", "rules": [rule]})
        assert proxy.reload().returncode == 0
        assert ask() == 403
        wire.close()
        assert reads(service, ROLE) == 1


def test_head_and_get_share_what_is_kept() -> None:
    with both() as (service, proxy):
        head, get = proxy.request("HEAD", MAC), proxy.get(MAC)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(get.body)) == get.headers["content-length"]
        assert reads(service, MAC) == 1


def test_where_nothing_is_to_be_kept_each_call_reaches_the_service() -> None:
    with both({"cache": False}) as (service, proxy):
        assert [proxy.get(MAC).status for _ in range(3)] == [200] * 3
        assert reads(service, MAC) == 3


def test_what_is_served_beyond_its_time_says_so_and_the_log_too() -> None:
    with both({"cache": {"static": "100ms"}}) as (service, proxy):
        assert "x-imds-proxy" not in proxy.get(MAC).headers
        service.stop()
        end = time.monotonic() + 5
        while (old := proxy.get(MAC)).headers.get("x-imds-proxy") != "stale":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert old.status == 200
        assert proxy.stop() == 0
        said = [event for event in proxy.log() if event["event"] == "stale"]
        assert [event["path"] for event in said] == [MAC]


def test_a_role_that_was_detached_is_gone_for_all_as_soon_as_one_hears_of_it() -> None:
    with both({"cache": {"listing": "0s"}}) as (service, proxy):
        assert proxy.get(ROLE).status == 200
        held = json.loads(proxy.get("/latest/meta-data/all").body)
        assert "demo-role" in held["ram"]["security-credentials"]
        service.patch(role=None)
        assert proxy.get(ROLE).status == 200  # nobody knows yet
        assert proxy.get("/latest/meta-data/ram/security-credentials/").status == 404
        assert proxy.get(ROLE).status == 404
        assert b"demo-role" not in proxy.get("/latest/meta-data/all").body
        service.patch(role="demo-role")
        assert proxy.get("/latest/meta-data/ram/security-credentials/").status == 200
        assert proxy.get(ROLE).status == 200
