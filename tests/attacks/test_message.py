"""Messages (ATTACKS 11, 12, 14-16, 18): refused in every kind of session, the rest never read."""

from __future__ import annotations

import pytest

from attack import Said, say
from imds_proxy.emulator.service import Emulator
from proxy import Proxy

HOST = b"Host: 100.100.100.200\r\n"
TTL = b"X-aliyun-ecs-metadata-token-ttl-seconds: 60\r\n"
GET = b"GET /latest/meta-data/mac HTTP/1.1\r\n"
PUT = b"PUT /latest/api/token HTTP/1.1\r\n"
SMUGGLED = b"GET /latest/user-data HTTP/1.1\r\n" + HOST + b"\r\n"
SMUGGLED_PATH = "/latest/user-data"
MADE_UP = b"X-aliyun-ecs-metadata-token: made-up\r\n"


@pytest.fixture(params=["legacy", "fallback", "hardened", "token"])
def head(request: pytest.FixtureRequest, proxy: Proxy, token: bytes) -> bytes:
    """A request line and headers of each kind of session, without Host and end."""
    if request.param == "token":
        return PUT + TTL
    if request.param == "hardened":
        return GET + b"X-aliyun-ecs-metadata-token: " + token + b"\r\n"
    if request.param == "fallback":
        (failed,) = say((proxy.host, proxy.port), GET + HOST + MADE_UP + b"\r\n")
        assert failed.status == 401
    return GET


def one(proxy: Proxy, raw: bytes) -> Said:
    (said,) = say((proxy.host, proxy.port), raw)
    return said


def test_without_an_attack_each_kind_is_served(proxy: Proxy, head: bytes) -> None:
    assert one(proxy, head + HOST + b"\r\n").status == 200


@pytest.mark.parametrize(
    "header",
    [
        b"X-Forwarded-For: 10.0.0.1",
        b"x-forwarded-for:",
        b"X-FORWARDED-FOR: 10.0.0.1, 10.0.0.2",
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2",
        b"X-Forwarded-Host: evil.example",
        b"Forwarded: for=10.0.0.1",
        b"Via: 1.1 squid",
        b"X-Real-IP: 10.0.0.1",
    ],
)
def test_11_what_a_relay_adds_is_refused_where_no_token_shows_that_it_was_none(
    proxy: Proxy, head: bytes, header: bytes
) -> None:
    said = one(proxy, head + HOST + header + b"\r\n\r\n")
    if b"metadata-token: " in head:  # a relay cannot send the PUT that gave it
        assert said.status == 200
    else:
        assert (said.status, said.slug) == (403, "relayed")


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"100.100.100.200.",
        b"100.100.100.200:81",
        b"100.100.100.200:080",
        b"100.100.100.200 ",
        b"100.100.100.201",
        b"1684300999",
        b"0x64.0x64.0x64.0xc8",
        b"[::ffff:100.100.100.200]",
        b"[fd00:0100::100:200]",
        b"fd00:100::100:200",
        b"localhost",
        b"127.0.0.1",
        b"user@100.100.100.200",
        b"",
    ],
)
def test_12_a_host_that_is_not_ours_is_refused(proxy: Proxy, head: bytes, host: bytes) -> None:
    said = one(proxy, head + b"Host: " + host + b"\r\n\r\n")
    if host.endswith(b" "):  # blanks around a value are no part of it
        assert said.status == 200
    else:
        assert (said.status, said.slug) == (403, "host")


@pytest.mark.parametrize(
    "host",
    [b"100.100.100.200", b"100.100.100.200:80", b"[fd00:100::100:200]", b"[FD00:100::100:200]:80", b"own"],
)
def test_12_every_form_of_ours_is_accepted(proxy: Proxy, head: bytes, host: bytes) -> None:
    name = b"%s:%d" % (proxy.host.encode(), proxy.port) if host == b"own" else host
    assert one(proxy, head + b"Host: " + name + b"\r\n\r\n").status == 200


@pytest.mark.parametrize("hosts", [b"", HOST + HOST, HOST + b"Host: evil.example\r\n"])
def test_12_a_host_is_there_once(proxy: Proxy, head: bytes, hosts: bytes) -> None:
    assert one(proxy, head + hosts + b"\r\n").status == 400


@pytest.mark.parametrize(
    "header",
    [
        b"Origin: http://evil.example",
        b"Referer: http://evil.example/",
        b"Cookie: a=b",
        b"Upgrade-Insecure-Requests: 1",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Dest: iframe",
        b"Sec-Fetch-User: ?1",
    ],
)
def test_13_what_a_browser_adds_is_refused_without_a_token(proxy: Proxy, head: bytes, header: bytes) -> None:
    said = one(proxy, head + HOST + header + b"\r\n\r\n")
    if b"metadata-token: " in head:
        assert said.status == 200
    else:
        assert (said.status, said.slug) == (403, "browser")


@pytest.mark.parametrize("header", [b"Sec-Fetch-Mode: cors", b"X-Forwarded-Proto: http"])
def test_13_what_node_and_meshes_add_is_no_evidence(proxy: Proxy, head: bytes, header: bytes) -> None:
    assert one(proxy, head + HOST + header + b"\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "line",
    [
        b"TRACE /latest/meta-data/mac",
        b"OPTIONS /latest/meta-data/mac",
        b"OPTIONS /latest/api/token",
        b"POST /latest/api/token",
        b"DELETE /latest/api/token",
        b"PUT /latest/user-data",
        b"PUT /2016-01-01/api/token",
        b"PATCH /latest/meta-data/mac",
        b"get /latest/meta-data/mac",
        b"Put /latest/api/token",
        b"GET /latest/api/token",
        b"HEAD /latest/api/token",
    ],
)
def test_14_other_methods_are_a_405_and_end_the_connection(
    proxy: Proxy, service: Emulator, line: bytes
) -> None:
    before = (service.counters().token_puts, service.counters().by_path.get(SMUGGLED_PATH))
    said = one(proxy, line + b" HTTP/1.1\r\n" + HOST + TTL + b"\r\n" + SMUGGLED)
    assert said.status == 405
    assert (service.counters().token_puts, service.counters().by_path.get(SMUGGLED_PATH)) == before


@pytest.mark.parametrize(
    "header", [b"X-HTTP-Method-Override: PUT", b"x-http-method: PUT", b"X-Method-Override: DELETE"]
)
def test_14_a_method_override_is_refused(proxy: Proxy, head: bytes, header: bytes) -> None:
    assert one(proxy, head + HOST + header + b"\r\n\r\n").slug == "method-override"


def test_15a_after_a_head_in_bare_line_feeds_nothing_is_read(proxy: Proxy, service: Emulator) -> None:
    bare = b"GET /latest/meta-data/mac HTTP/1.1\nHost: 100.100.100.200\n\n"
    assert one(proxy, bare + SMUGGLED).status == 200
    assert SMUGGLED_PATH not in service.counters().by_path


TOKEN_HEADERS = {
    MADE_UP + MADE_UP: "duplicate-header",
    MADE_UP + MADE_UP.upper(): "duplicate-header",
    b"X-aliyun-ecs-metadata-token:\r\n" + MADE_UP: "duplicate-header",
    b"X-aliyun-ecs-metadata-token: a\r\n b\r\n": "folded-header",
    b"X-aliyun-ecs-metadata-token:\r\n\ta\r\n": "folded-header",
    b"X-aliyun-ecs-metadata-token : a\r\n": "bad-request",
    MADE_UP + b"Connection: X-Aliyun-Ecs-Metadata-Token\r\n": "hop-token",
    TTL + b"Connection: close, x-aliyun-ecs-metadata-token-ttl-seconds\r\n": "hop-token",
    TTL + TTL: "duplicate-header",
}


@pytest.mark.parametrize("headers", TOKEN_HEADERS, ids=repr)
def test_15_token_headers_in_disguise_are_refused(proxy: Proxy, headers: bytes) -> None:
    for line in (GET, PUT):
        said = one(proxy, line + HOST + headers + b"\r\n" + SMUGGLED)
        assert (said.status, said.slug) == (400, TOKEN_HEADERS[headers])


FRAMINGS = [
    b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    b"Content-Length: 0, 0\r\n\r\n",
    b"Content-Length: +0\r\n\r\n",
    b"Content-Length: 44\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0;a=b\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
    b"Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n",
    b"X: a\r\n b\r\n\r\n",
    b"X : a\r\n\r\n",
    b"X: a\x00b\r\n\r\n",
    b"X: a\rb\r\n\r\n",
]


@pytest.mark.parametrize("framing", FRAMINGS, ids=repr)
@pytest.mark.parametrize("line", [GET, PUT + TTL], ids=["GET", "PUT"])
def test_16_no_second_request_hides_behind_a_doubtful_body(
    proxy: Proxy, service: Emulator, line: bytes, framing: bytes
) -> None:
    said = one(proxy, line + HOST + framing + SMUGGLED)
    assert said.status == 400
    assert SMUGGLED_PATH not in service.counters().by_path


def test_16_a_true_empty_chunked_put_is_followed_by_the_next_request(proxy: Proxy) -> None:
    raw = PUT + TTL + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET + HOST + b"\r\n"
    assert [said.status for said in say((proxy.host, proxy.port), raw)] == [200, 200]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (GET + HOST + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (GET + HOST + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n", 431),
        (GET + HOST + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n", 431),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    ],
    ids=["giant head", "10,000 headers", "101 headers", "giant target", "long target"],
)
def test_18_what_is_too_large_is_said_to_be(proxy: Proxy, raw: bytes, status: int) -> None:
    assert one(proxy, raw).status == status
