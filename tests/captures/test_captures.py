"""Every request that was captured from real SDKs, agents and tools: read, named, and answered as directly."""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from captured import CONVERSATIONS, DISTINCT, Sent
from imds_proxy.emulator.service import Emulator
from imds_proxy.errors import METHOD, TARGET_FORM, TOKEN_PATH, Refusal, Refused
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.protocol.request import HeadRules, Request, RequestReader
from imds_proxy.protocol.session import session_kind
from proxy import TOKEN_HEADER, Proxy, ask, running_proxy

RULES = HeadRules(ALIBABA, ItemClassifier(ALIBABA), max_head=16384, max_target=2048)
AS_CAPTURED = re.compile(rb"(?i)(?<=\r\nx-aliyun-ecs-metadata-token: )[^\r]+")
REFUSED: dict[bytes, tuple[Refusal, str]] = {
    b"POST /": (
        METHOD,
        "a shell script's mistake; no item takes a POST, and the service answers 405 as well",
    ),
    b"GET /latest/api/token": (
        TOKEN_PATH,
        "a defect of @alicloud/credentials 2.3.1: the service answers 405 as well, and the SDK falls back",
    ),
    b"PUT http://": (TARGET_FORM, "absolute-form is for a forward proxy, which this is not: see NO_PROXY"),
    b"GET http://": (TARGET_FORM, "absolute-form is for a forward proxy, which this is not: see NO_PROXY"),
}
SERVED = {key: sent for key, sent in DISTINCT.items() if not sent.head.startswith(tuple(REFUSED))}


def read(sent: Sent) -> Request:
    reader = RequestReader(RULES, {})
    reader.feed(sent.head + sent.body)
    request = reader.next()
    assert isinstance(request, Request)
    assert reader.buffered == 0
    return request


def test_the_captures_are_all_there() -> None:
    assert len(CONVERSATIONS) == 204
    assert len(DISTINCT) == 468


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_each_request_of_a_conversation_gets_its_kind_of_session(name: str) -> None:
    failed_at: float | None = None
    for sent in CONVERSATIONS[name]:
        if sent.head.startswith(tuple(REFUSED)):
            continue
        request = read(sent)
        has_token = request.token is not None
        kind = session_kind(request.is_put, has_token, failed_at, sent.at)
        assert kind.value == sent.session, sent.head
        if (request.is_put or has_token) and sent.status != 200:
            failed_at = sent.ended


@pytest.mark.parametrize("start", REFUSED)
def test_what_is_refused_is_refused_for_the_listed_reason(start: bytes) -> None:
    refusal, reason = REFUSED[start]
    refused = [sent for sent in DISTINCT.values() if sent.head.startswith(start)]
    assert refused, reason
    for sent in refused:
        with pytest.raises(Refused) as caught:
            read(sent)
        assert caught.value.refusal is refusal, reason


@dataclass(frozen=True)
class Heard:
    """One answer as it came; `kept` says whether the connection answered a further request."""

    status: int
    body: bytes
    lengths: tuple[str, ...]
    codings: tuple[str, ...]
    closes: bool
    kept: bool


class _Wire:
    """The reading side of a socket, as http.client wants it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> _Wire:
        return self

    def __getattr__(self, name: str) -> object:
        return (lambda: None) if name == "close" else getattr(self._stream, name)


def hear(address: tuple[str, int], head: bytes, body: bytes) -> Heard:
    with socket.create_connection(address, 5) as wire, wire.makefile("rb") as stream:
        wire.sendall(head + body)
        answer = http.client.HTTPResponse(_Wire(stream), method=head.split(b" ")[0].decode())  # type: ignore[arg-type]
        answer.begin()
        content = answer.read()
        try:
            wire.sendall(b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n")
            kept = stream.readline().startswith(b"HTTP/1.1 200")
        except ConnectionError:
            kept = False
        return Heard(
            answer.status,
            content,
            tuple(answer.headers.get_all("content-length", [])),
            tuple(answer.headers.get_all("transfer-encoding", [])),
            (answer.headers.get("connection") or "").lower() == "close",
            kept,
        )


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def proxy(service: Emulator) -> Iterator[Proxy]:
    with running_proxy(service.address) as running:
        yield running


def live_token(address: tuple[str, int]) -> bytes:
    ttl = {"X-aliyun-ecs-metadata-token-ttl-seconds": "21600"}
    return ask(*address, "PUT", "/latest/api/token", ttl).body


def test_every_request_is_answered_as_the_service_answers_it(service: Emulator, proxy: Proxy) -> None:
    """468 heads over real sockets; a captured token has long expired, so each side gets a live one."""
    through = (proxy.host, proxy.port)
    direct_token, token = live_token(service.address), live_token(through)
    for head, body in SERVED:
        directly = hear(service.address, AS_CAPTURED.sub(direct_token, head), body)
        heard = hear(through, AS_CAPTURED.sub(token, head), body)
        if head.startswith(b"PUT"):
            given = heard.body.decode("ascii")
            assert ask(*service.address, "GET", "/latest/meta-data/mac", {TOKEN_HEADER: given}).status == 200
            assert len(heard.body) == len(directly.body)
            directly = Heard(**{**vars(directly), "body": heard.body})
        assert heard == directly, head
        assert heard.codings == ()


def test_an_expired_token_is_refused_as_the_service_refuses_it(service: Emulator, proxy: Proxy) -> None:
    stale = [(head, body) for head, body in SERVED if AS_CAPTURED.search(head)]
    assert len(stale) > 200
    for head, body in stale[::20]:
        assert hear((proxy.host, proxy.port), head, body).status == 401
        assert hear(service.address, head, body).status == 401


def test_a_refused_request_gets_the_status_of_its_refusal(proxy: Proxy) -> None:
    for start, (refusal, _) in REFUSED.items():
        for sent in DISTINCT.values():
            if sent.head.startswith(start):
                heard = hear((proxy.host, proxy.port), sent.head, sent.body)
                assert heard.status == refusal.status
                assert refusal.slug.encode() in heard.body
                assert not heard.kept
