from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.clients.variables import places_of, settings_of


def settings(*entries: str) -> dict[str, str]:
    return {one.name: one.value for one in settings_of("\0".join(entries).encode())}


def test_only_names_on_the_list_are_looked_at() -> None:
    assert settings("PATH=/bin", "PASSWORD=x", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=y") == {}


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("true", "true"), ("TRUE", "True"), ("false", "false"), ("1", "other"), ("", "other")],
)
def test_of_a_value_only_its_meaning_is_kept(value: str, meaning: str) -> None:
    assert settings(f"ALIBABA_CLOUD_IMDSV1_DISABLED={value}") == {"ALIBABA_CLOUD_IMDSV1_DISABLED": meaning}


def test_no_value_leaves_a_look_at_the_environment() -> None:
    secret = "http://user:hunter2@proxy:8080"
    found = repr(settings_of(f"HTTP_PROXY={secret}\0ALIBABA_CLOUD_IMDSV1_DISABLED={secret}".encode()))
    assert "hunter2" not in found and "proxy:8080" not in found


@pytest.mark.parametrize(
    "spared",
    ["100.100.100.200", "localhost, 100.100.100.200", "*", "100.64.0.0/10"],
)
def test_a_proxy_and_what_it_spares_are_seen(spared: str) -> None:
    assert settings("HTTP_PROXY=http://p", f"no_proxy={spared}") == {"HTTP_PROXY": "set", "no-proxy": "set"}


@pytest.mark.parametrize(
    "spared", ["", "100.100.100.20", "localhost", "10.0.0.0/8", "100.100.100.200/99", ".200"]
)
def test_a_proxy_without_an_exception_for_the_service_is_seen_as_such(spared: str) -> None:
    assert settings("HTTP_PROXY=http://p", f"NO_PROXY={spared}") == {"HTTP_PROXY": "set"}


def test_both_exceptions_count_since_clients_read_one_or_the_other() -> None:
    entries = ("HTTP_PROXY=http://p", "NO_PROXY=100.100.100.200", "no_proxy=localhost")
    assert settings(*entries) == {"HTTP_PROXY": "set"}


@pytest.mark.parametrize("entries", [(), ("HTTP_PROXY=",), ("NO_PROXY=*",)])
def test_without_a_proxy_nothing_is_said_of_one(entries: tuple[str, ...]) -> None:
    assert settings(*entries) == {}


def test_the_first_of_two_values_counts_as_it_does_for_getenv() -> None:
    assert settings("ALIBABA_CLOUD_IMDSV2_DISABLED=true", "ALIBABA_CLOUD_IMDSV2_DISABLED=false") == {
        "ALIBABA_CLOUD_IMDSV2_DISABLED": "true"
    }


def test_places_are_what_packages_are_looked_for_by() -> None:
    found = places_of(b"VIRTUAL_ENV=/srv/venv\0HOME=/root\0SECRET=x\0NODE_PATH=/a:/b")
    assert found == {"VIRTUAL_ENV": "/srv/venv", "HOME": "/root", "NODE_PATH": "/a:/b"}


@given(st.binary(max_size=400))
def test_any_environment_can_be_read(environ: bytes) -> None:
    settings_of(environ)
    places_of(environ)
