"""The provider's facts, as the provider documents them."""

from __future__ import annotations

import ipaddress

import pytest

from imds_proxy.protocol.items import PathPattern
from imds_proxy.protocol.profile import ALIBABA, PROFILES, Profile
from imds_proxy.protocol.target import canonical_target


def test_alibaba_is_as_documented() -> None:
    assert ALIBABA.addresses == ("100.100.100.200", "fd00:100::100:200")
    assert ALIBABA.port == 80
    assert ALIBABA.token_path == "/latest/api/token"
    assert (ALIBABA.ttl_min, ALIBABA.ttl_max) == (1, 21600)
    assert ALIBABA.token_header == b"x-aliyun-ecs-metadata-token"
    assert ALIBABA.ttl_header == b"x-aliyun-ecs-metadata-token-ttl-seconds"
    assert b"x-forwarded-for" in ALIBABA.forwarding_headers


@pytest.mark.parametrize("header", [b"x-forwarded-proto", b"sec-fetch-mode", b"user-agent", b"te"])
def test_what_meshes_and_plain_clients_send_is_no_evidence(header: bytes) -> None:
    assert header not in ALIBABA.forwarding_headers | ALIBABA.browser_headers


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_is_well_formed(profile: Profile) -> None:
    assert PROFILES[profile.name] is profile
    for address in profile.addresses:
        assert str(ipaddress.ip_address(address)) == address
    for path in (profile.token_path, profile.instance_id_path):
        assert canonical_target(path.encode()).path == path
    for header in (profile.token_header, profile.ttl_header, *profile.forwarding_headers):
        assert header == header.lower()
    for text, _ in profile.item_classes:
        PathPattern.parse(text)
    assert 0 < profile.ttl_min < profile.ttl_max
