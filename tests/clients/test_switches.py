"""Variables that turn hardened mode off, are misspelt, or send calls past the proxy."""

from __future__ import annotations

import pytest

from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.evidence import Evidence, Found
from imds_proxy.clients.naming import Named
from imds_proxy.clients.switches import proxy_findings, switch_findings
from imds_proxy.clients.variables import settings_of


def evidence(*entries: str, found: tuple[Found, ...] = ()) -> Evidence:
    return Evidence(found, settings_of("\0".join(entries).encode()))


def client(tool: str, version: str) -> Named:
    return Named(tool, version, "/srv", catalogue().get(tool))


def slugs(*entries: str, clients: tuple[Named, ...] = ()) -> list[str]:
    return [one.slug for one in switch_findings(evidence(*entries), clients)]


@pytest.mark.parametrize(
    ("entry", "slug"),
    [
        ("ALIBABA_CLOUD_IMDSV2_DISABLED=true", "switched-off"),
        ("ALIBABA_CLOUD_IMDSV1_DISABLED=false", "switched-off"),
        ("ALIBABA_CLOUD_IMDSV1_DISABLED=1", "switch-value"),
        ("ALIBABA_CLOUD_IMDSV1_DISABLED=yes", "switch-value"),
        ("ALIBABA_CLOUD_IMDSV1_DISABLE=true", "misspelt"),
        ("ALICLOUD_IMDSV1_DISABLED=true", "misspelt"),
        ("AWS_EC2_METADATA_V1_DISABLED=true", "misspelt"),
        ("ALIBABA_CLOUD_ECS_IMDSV2_ENABLE=true", "no-effect"),
    ],
)
def test_a_switch_that_does_not_do_what_it_was_set_for_is_a_finding(entry: str, slug: str) -> None:
    assert slugs(entry) == [slug]


@pytest.mark.parametrize(
    "entry",
    [
        "ALIBABA_CLOUD_IMDSV1_DISABLED=true",
        "ALIBABA_CLOUD_IMDSV1_DISABLED=True",
        "ALIBABA_CLOUD_IMDSV2_DISABLED=false",
        "ALIBABA_CLOUD_ECS_METADATA=role",
        "PATH=/bin",
    ],
)
def test_one_that_does_is_none(entry: str) -> None:
    assert slugs(entry) == []


def test_the_misspelt_name_is_right_for_the_releases_that_read_it() -> None:
    assert slugs("ALIBABA_CLOUD_IMDSV1_DISABLE=true", clients=(client("java-credentials", "0.3.9"),)) == []
    assert slugs("ALIBABA_CLOUD_IMDSV1_DISABLE=true", clients=(client("java-credentials", "0.3.10"),)) == [
        "misspelt"
    ]


def test_the_opt_in_variable_is_right_for_the_releases_that_read_it() -> None:
    assert slugs("ALIBABA_CLOUD_ECS_IMDSV2_ENABLE=true", clients=(client("go-credentials", "1.3.5"),)) == []
    assert slugs("ALIBABA_CLOUD_ECS_IMDSV2_ENABLE=true", clients=(client("go-credentials", "1.4.0"),)) == [
        "no-effect"
    ]


def test_two_releases_want_the_word_in_lower_case() -> None:
    entry = "ALIBABA_CLOUD_IMDSV1_DISABLED=TRUE"
    assert slugs(entry, clients=(client("go-credentials", "1.3.10"),)) == ["switch-value"]
    assert slugs(entry, clients=(client("go-credentials", "1.4.0"),)) == []


SDK = Found("pypi", "alibabacloud-credentials", "1.0.12", "/srv")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_http_proxy_takes_credentials_past_this_one(name: str) -> None:
    (one,) = proxy_findings(evidence(f"{name}=http://proxy:3128"), catalogue())
    assert one.slug == "http-proxy"
    assert one.fix == "add 100.100.100.200 to NO_PROXY"
    assert "proxy:3128" not in one.sentence


def test_no_proxy_ends_that_except_for_the_sdk_that_ignores_it() -> None:
    entries = ("HTTP_PROXY=http://proxy", "NO_PROXY=100.100.100.200")
    assert list(proxy_findings(evidence(*entries), catalogue())) == []
    (one,) = proxy_findings(evidence(*entries, found=(SDK,)), catalogue())
    assert "whatever NO_PROXY says" in one.sentence


def test_without_one_nothing_is_said() -> None:
    assert list(proxy_findings(evidence(found=(SDK,)), catalogue())) == []
