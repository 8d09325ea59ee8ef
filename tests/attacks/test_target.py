"""Targets (ATTACKS 1-10): refused before anything is forwarded, or decided by their one canonical form."""

from __future__ import annotations

import pytest

from attack import say
from imds_proxy.emulator.service import Emulator
from proxy import Proxy

ROLE = b"/latest/meta-data/ram/security-credentials/demo-role"
HOST = b"Host: 100.100.100.200\r\n"
PAGE = b"User-Agent: Mozilla/5.0 HeadlessChrome/120\r\n"
PROBE = "/latest/meta-data/instance-id"

REFUSED = {
    # 1: encodings in a sensitive path
    b"/latest%2fuser-data": "target-encoding",
    b"/latest/meta-data/ram%2Fsecurity-credentials/demo-role": "target-encoding",
    b"/latest/meta-data/ram%5csecurity-credentials/demo-role": "target-encoding",
    b"/latest/user-data%00": "target-encoding",
    b"/latest/meta-data/%2e%2e/user-data": "target-dots",
    b"/latest/meta-data/%c0%ae%c0%ae/user-data": "target-encoding",
    b"/latest/meta-data/%252e%252e/user-data": "target-encoding",
    b"/latest/us%2565r-data": "target-encoding",
    b"/latest/user-data%": "target-encoding",
    b"/latest/user-data%0d%0aX:%20y": "target-encoding",
    # 2: dot segments
    b"/./latest/user-data": "target-dots",
    b"/latest/meta-data/../user-data": "target-dots",
    b"/latest/user-data/..": "target-dots",
    b"/latest/user-data/.": "target-dots",
    b"/latest/meta-data/../../latest/user-data": "target-dots",
    # 4: parameters, junk, stray bytes
    b"/latest/user-data;x=y": "target-params",
    b"/latest;v=1/user-data": "target-params",
    b"/latest/user-data?": "target-query",
    b"/latest/user-data?x": "target-query",
    b"/latest/user-data#x": "target-character",
    b"/latest/user-data\x00": "bad-request",
    b"/latest/user-data\tx": "bad-request",
    b"/latest/user-data\x7f": "bad-request",
    b"/latest/user-d\xc3\xa4ta": "bad-request",
    b"/latest\\user-data": "target-character",
    # 8: other forms of a target, and of the address
    b"http://100.100.100.200/latest/user-data": "target-form",
    b"http://user:pass@100.100.100.200/latest/user-data": "target-form",
    b"http://1684300999/latest/user-data": "target-form",
    b"http://0144.0144.0144.0310/latest/user-data": "target-form",
    b"http://[::ffff:100.100.100.200]/latest/user-data": "target-form",
    b"100.100.100.200:80": "target-form",
    b"*": "target-form",
    b"latest/user-data": "target-form",
}


@pytest.mark.parametrize("kind", ["legacy", "hardened"])
@pytest.mark.parametrize("target", REFUSED, ids=repr)
def test_a_target_that_could_mean_two_things_is_refused_and_not_forwarded(
    proxy: Proxy, service: Emulator, token: bytes, target: bytes, kind: str
) -> None:
    before = service.counters().by_path
    extra = b"X-aliyun-ecs-metadata-token: " + token + b"\r\n" if kind == "hardened" else b""
    (said,) = say((proxy.host, proxy.port), b"GET " + target + b" HTTP/1.1\r\n" + HOST + extra + b"\r\n")
    assert (said.status, said.slug) == (400, REFUSED[target])
    assert said.slug.encode() in said.body
    assert without_probe(service.counters().by_path) == without_probe(before)


def without_probe(paths: dict[str, int]) -> dict[str, int]:
    return {path: count for path, count in paths.items() if path != PROBE}


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        (b"//latest/meta-data/region-id", "/latest/meta-data/region-id"),
        (b"/latest//meta-data///zone-id", "/latest/meta-data/zone-id"),
        (b"/latest/%6deta-data/serial-number", "/latest/meta-data/serial-number"),
        (b"/latest/meta%2ddata/vpc-id", "/latest/meta-data/vpc-id"),
    ],
)
def test_spellings_of_one_path_go_upstream_as_one(
    proxy: Proxy, service: Emulator, asked: bytes, forwarded: str
) -> None:
    (said,) = say((proxy.host, proxy.port), b"GET " + asked + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert said.status == 200
    assert forwarded in service.counters().by_path
    assert asked.decode() not in service.counters().by_path


SENSITIVE = [
    # 3, 5: another case, more slashes
    b"/latest/meta-data/Ram/security-credentials/demo-role",
    b"/LATEST/META-DATA/RAM/SECURITY-CREDENTIALS/demo-role",
    b"//latest//meta-data//ram//security-credentials//demo-role",
    b"/Latest/User-Data",
    # 6: other versions, none
    b"/2016-01-01/user-data",
    b"/1.0/user-data",
    b"/2031-01-01/meta-data/ram/security-credentials/demo-role",
    b"/whatever/user-data",
    b"/user-data",
    # 9: listings
    b"/latest/meta-data/ram/security-credentials/",
    b"/latest/meta-data/ram/security-credentials",
    b"/latest/meta-data/ram/",
    b"/latest/meta-data/all",
    # 10: by another name
    b"/latest/user-data/",
    b"/latest/vendor-data",
    b"/latest/dynamic/instance-identity/document",
    b"/latest/dynamic/instance-identity/pkcs7?audience=x",
    b"/latest/dynamic/instance-identity/",
    ROLE + b"/",
    ROLE,
]


@pytest.mark.parametrize("target", SENSITIVE, ids=repr)
def test_a_rule_on_a_secret_covers_its_every_name(proxy: Proxy, service: Emulator, target: bytes) -> None:
    """The rule is that no browser reads it; a browser's agent is all that tells this one."""
    before = service.counters().by_path
    (said,) = say((proxy.host, proxy.port), b"GET " + target + b" HTTP/1.1\r\n" + HOST + PAGE + b"\r\n")
    assert (said.status, said.slug) == (403, "browser")
    assert without_probe(service.counters().by_path) == without_probe(before)


@pytest.mark.parametrize(
    "target",
    [b"/latest/user-database", b"/latest/my-user-data", b"/latest/meta-data/ramp", b"/latest/meta-data/alls"],
)
def test_7_a_path_that_only_begins_alike_is_not_covered(proxy: Proxy, target: bytes) -> None:
    (said,) = say((proxy.host, proxy.port), b"GET " + target + b" HTTP/1.1\r\n" + HOST + PAGE + b"\r\n")
    assert (said.status, said.slug) == (404, "")
