"""Requests as h11 reads them, and what is refused though h11 lets it pass (ATTACKS 11, 14-18)."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imds_proxy.errors import (
    BAD_REQUEST,
    DUPLICATE_HEADER,
    FOLDED_HEADER,
    FRAMING,
    HEAD_TOO_LARGE,
    HOP_TOKEN,
    METHOD,
    METHOD_OVERRIDE,
    TARGET_LENGTH,
    TARGET_QUERY,
    TOKEN_PATH,
    Refusal,
    Refused,
)
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA, ItemClass
from imds_proxy.protocol.request import HeadRules, Request, RequestReader, Signal
from imds_proxy.protocol.target import canonical_target

RULES = HeadRules(ALIBABA, ItemClassifier(ALIBABA), max_head=16384, max_target=2048)
LINE = b"GET /latest/meta-data/mac HTTP/1.1\r\n"
PUT = b"PUT /latest/api/token HTTP/1.1\r\n"
HOST = b"Host: 100.100.100.200\r\n"
TTL = b"X-aliyun-ecs-metadata-token-ttl-seconds: 60\r\n"
TOKEN = b"X-aliyun-ecs-metadata-token: abc==\r\n"
NEXT = b"GET /latest/user-data HTTP/1.1\r\n" + HOST + b"\r\n"


def reader() -> RequestReader:
    return RequestReader(RULES, {})


def read(raw: bytes) -> Request:
    parser = reader()
    parser.feed(raw)
    request = parser.next()
    assert isinstance(request, Request)
    return request


def refusal_of(raw: bytes) -> Refusal:
    """The refusal; nothing after it is read."""
    parser = reader()
    parser.feed(raw)
    with pytest.raises(Refused) as caught:
        parser.next()
    parser.feed(NEXT)
    assert parser.next() is Signal.NEED_DATA
    assert parser.ended
    return caught.value.refusal


def everything(pieces: list[bytes], memo: dict[bytes, Request] | None = None) -> list[object]:
    """All that a reader makes of the pieces: requests, signals but for more data, a refusal's slug."""
    parser = RequestReader(RULES, {} if memo is None else memo)
    out: list[object] = []
    for piece in pieces:
        parser.feed(piece)
        while True:
            try:
                event = parser.next()
            except Refused as error:
                out.append(error.refusal.slug)
                break
            if event is Signal.NEED_DATA:
                break
            out.append(event)
    return out


def test_a_plain_get() -> None:
    request = read(LINE + HOST + b"\r\n")
    assert (request.method, request.is_put, request.keep_alive) == ("GET", False, True)
    assert request.target.path == "/latest/meta-data/mac"
    assert request.item is ItemClass.STATIC
    assert request.host == b"100.100.100.200"
    assert (request.token, request.ttl) == (None, None)
    assert (request.relayed, request.browser, request.browser_agent, request.evidence) == (
        None, None, False, (),
    )  # fmt: skip


def test_a_token_put() -> None:
    request = read(PUT + HOST + TTL + b"\r\n")
    assert (request.method, request.is_put, request.ttl) == ("PUT", True, b"60")
    assert request.item is ItemClass.TOKEN


def test_a_get_with_a_token() -> None:
    assert read(LINE + HOST + TOKEN + b"\r\n").token == "abc=="


@pytest.mark.parametrize("line", [b"X-aliyun-ecs-metadata-token:\r\n", b"X-aliyun-ecs-metadata-token:  \r\n"])
def test_an_empty_token_is_none(line: bytes) -> None:
    assert read(LINE + HOST + line + b"\r\n").token is None


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (LINE + HOST + b"\r\n", True),
        (LINE + HOST + b"Connection: keep-alive\r\n\r\n", True),
        (LINE + HOST + b"Connection: close\r\n\r\n", False),
        (LINE + HOST + b"TE: trailers\r\nConnection: TE, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.0\n\n", False),
        (b"GET / HTTP/1.1\nHost: 100.100.100.200\n\n", False),
        (b"GET / HTTP/1.1\r\nHost:100.100.100.200\r\n\n", False),
    ],
)
def test_when_a_connection_goes_on(raw: bytes, keep_alive: bool) -> None:
    assert read(raw).keep_alive is keep_alive


@pytest.mark.parametrize("last", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n"])
def test_after_the_last_request_nothing_is_read(last: bytes) -> None:
    events = everything([last + NEXT, NEXT])
    assert len(events) == 1
    assert isinstance(events[0], Request)


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        # Row 14: methods.
        *[(b"%s /latest/user-data HTTP/1.1\r\n" % method + HOST + b"\r\n", METHOD)
          for method in (b"POST", b"TRACE", b"OPTIONS", b"DELETE", b"PATCH", b"get", b"PUT", b"CONNECT")],
        (b"put /latest/api/token HTTP/1.1\r\n" + HOST + TTL + b"\r\n", METHOD),
        (b"PUT /2016-01-01/api/token HTTP/1.1\r\n" + HOST + TTL + b"\r\n", METHOD),
        (b"PUT /latest/api/token/ HTTP/1.1\r\n" + HOST + TTL + b"\r\n", METHOD),
        (b"PUT /latest/API/token HTTP/1.1\r\n" + HOST + TTL + b"\r\n", METHOD),
        (b"GET /latest/api/token HTTP/1.1\r\n" + HOST + b"\r\n", TOKEN_PATH),
        (b"HEAD /latest/api/token HTTP/1.1\r\n" + HOST + b"\r\n", TOKEN_PATH),
        (LINE + HOST + b"X-HTTP-Method-Override: PUT\r\n\r\n", METHOD_OVERRIDE),
        (LINE + HOST + b"x-http-method: PUT\r\n\r\n", METHOD_OVERRIDE),
        (LINE + HOST + b"X-METHOD-OVERRIDE:\r\n\r\n", METHOD_OVERRIDE),
        # Row 15: the token headers.
        (LINE + HOST + TOKEN + TOKEN + b"\r\n", DUPLICATE_HEADER),
        (LINE + HOST + TOKEN + TOKEN.lower() + b"\r\n", DUPLICATE_HEADER),
        (LINE + HOST + TOKEN + TOKEN.upper() + b"\r\n", DUPLICATE_HEADER),
        (LINE + HOST + b"X-aliyun-ecs-metadata-token:\r\n" + TOKEN + b"\r\n", DUPLICATE_HEADER),
        (PUT + HOST + TTL + TTL + b"\r\n", DUPLICATE_HEADER),
        (LINE + HOST + b"X-aliyun-ecs-metadata-token: abc\r\n def\r\n\r\n", FOLDED_HEADER),
        (LINE + HOST + b"X-aliyun-ecs-metadata-token:\r\n\tabc\r\n\r\n", FOLDED_HEADER),
        (LINE + HOST + TOKEN + b"Connection: X-aliyun-ecs-metadata-token\r\n\r\n", HOP_TOKEN),
        (LINE + HOST + TOKEN + b"Connection: close,x-ALIYUN-ecs-metadata-token \r\n\r\n", HOP_TOKEN),
        (PUT + HOST + TTL + b"Connection: X-aliyun-ecs-metadata-token-ttl-seconds\r\n\r\n", HOP_TOKEN),
        (LINE + HOST + b"Connection: a\r\nConnection: x-aliyun-ecs-metadata-token\r\n\r\n", HOP_TOKEN),
        # Row 16: framing and smuggling.
        (PUT + HOST + TTL + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", DUPLICATE_HEADER),
        (PUT + HOST + TTL + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello", BAD_REQUEST),
        (LINE + HOST + b"content-length: 0\r\nCONTENT-LENGTH: 0\r\n\r\n", DUPLICATE_HEADER),
        (LINE + HOST + b"Content-Length: 0, 0\r\n\r\n", DUPLICATE_HEADER),
        (LINE + HOST + b"Content-Length: 5\r\n\r\nhello", FRAMING),
        (LINE + HOST + b"Content-Length: +0\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"Content-Length: -1\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"Content-Length: 0x0\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Content-Length: 5\r\n\r\nhello", FRAMING),
        (LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Transfer-Encoding: identity\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Transfer-Encoding: xchunked\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0;ext=1\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n00\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", FRAMING),
        (PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0\n\n", FRAMING),
        (LINE + b"Host : 100.100.100.200\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"No colon\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"X: a\r\n b\r\n\r\n", FOLDED_HEADER),
        (LINE + b" Host: x\r\n\r\n", BAD_REQUEST),
        (LINE + b"\r\nHost: x\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"X: a\rb\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"X: a\x00b\r\n\r\n", BAD_REQUEST),
        (LINE + HOST + b"X: a\r\r\n\r\n", BAD_REQUEST),
        (LINE[:-2] + b"\r\r\n" + HOST + b"\r\n", BAD_REQUEST),
        # The request line.
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET / HTTP/0.9\r\n\r\n", BAD_REQUEST),
        (b"GET / http/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
        (b"GET /\r\n\r\n", BAD_REQUEST),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD_REQUEST),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD_REQUEST),
        (b"\r\n\r\n", BAD_REQUEST),
        # Row 12: Host.
        (LINE + b"\r\n", BAD_REQUEST),
        (LINE + HOST + HOST + b"\r\n", BAD_REQUEST),
        # Row 4: a query on an item that takes none.
        (b"GET /latest/user-data?x=y HTTP/1.1\r\n" + HOST + b"\r\n", TARGET_QUERY),
        (b"GET /latest/user-data? HTTP/1.1\r\n" + HOST + b"\r\n", TARGET_QUERY),
        (b"PUT /latest/api/token?x HTTP/1.1\r\n" + HOST + TTL + b"\r\n", TARGET_QUERY),
        # Row 18: sizes.
        (b"GET /" + b"a" * 2048 + b" HTTP/1.1\r\n" + HOST + b"\r\n", TARGET_LENGTH),
        (b"GET /" + b"a" * 20_000, TARGET_LENGTH),
        (LINE + HOST + b"X: " + b"a" * 20_000, HEAD_TOO_LARGE),
        (LINE + HOST + b"X: " + b"a" * 17_000 + b"\r\n\r\n", HEAD_TOO_LARGE),
        (LINE + HOST + b"".join(b"H%d: x\r\n" % n for n in range(100)) + b"\r\n", HEAD_TOO_LARGE),
        (LINE + HOST + b"".join(b"H%d: x\r\n" % n for n in range(10_000)) + b"\r\n", HEAD_TOO_LARGE),
    ],
)  # fmt: skip
def test_what_is_refused(raw: bytes, refusal: Refusal) -> None:
    assert refusal_of(raw).slug == refusal.slug


@pytest.mark.parametrize("header", sorted(ALIBABA.forwarding_headers))
@pytest.mark.parametrize("value", [b"", b" ", b"1.2.3.4", b"1.2.3.4, 5.6.7.8"])
def test_a_forwarding_header_is_evidence_in_any_case_and_with_any_value(header: bytes, value: bytes) -> None:
    for name in (header, header.upper(), header.title()):
        request = read(LINE + HOST + name + b":" + value + b"\r\n\r\n")
        assert request.relayed == header
        assert request.evidence == ((header, value.strip()),)


@pytest.mark.parametrize("header", sorted(ALIBABA.browser_headers))
def test_a_browser_header_is_evidence(header: bytes) -> None:
    assert read(LINE + HOST + header + b": x\r\n\r\n").browser == header


@pytest.mark.parametrize(
    ("agent", "is_browser"),
    [
        (b"Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120", True),
        (b"MOZILLA/4.0", True),
        (b"Mozilla/5.0 (Windows NT; en) WindowsPowerShell/5.1", False),
        (b"curl/8", False),
        (b"AlibabaCloud (Linux; x86_64) Python/3.11 Mozilla/5", False),
    ],
)
def test_a_user_agent_tells_a_browser(agent: bytes, is_browser: bool) -> None:
    assert read(LINE + HOST + b"User-Agent: " + agent + b"\r\n\r\n").browser_agent is is_browser


def test_an_identity_document_keeps_its_query() -> None:
    request = read(
        b"GET /latest/dynamic/instance-identity/pkcs7?audience=a%20b HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    assert request.target.query == "audience=a%20b"


def test_a_chunked_empty_put_is_asked_to_go_on_and_then_read() -> None:
    parser = reader()
    parser.feed(PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert parser.next() is Signal.SEND_CONTINUE
    assert parser.next() is Signal.NEED_DATA
    parser.feed(b"0\r\n\r\n" + NEXT)
    request = parser.next()
    assert isinstance(request, Request)
    assert request.is_put
    following = parser.next()
    assert isinstance(following, Request)
    assert following.target.path == "/latest/user-data"


def test_no_continue_is_said_to_a_caller_that_did_not_wait() -> None:
    events = everything(
        [PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n"]
    )
    assert [type(event) for event in events] == [Request]


def test_asking_again_without_new_bytes_is_harmless() -> None:
    parser = reader()
    for cut in range(1, len(NEXT)):
        parser.feed(NEXT[cut - 1 : cut])
        assert parser.next() is Signal.NEED_DATA
        assert parser.next() is Signal.NEED_DATA
    parser.feed(NEXT[-1:])
    assert isinstance(parser.next(), Request)


def test_a_pipeline_is_read_in_order() -> None:
    paths = [f"/latest/meta-data/x{n}" for n in range(200)]
    raw = b"".join(b"GET %s HTTP/1.1\r\n" % path.encode() + HOST + b"\r\n" for path in paths)
    assert [event.target.path for event in everything([raw]) if isinstance(event, Request)] == paths


def test_a_repeated_head_is_answered_from_the_memo_and_a_large_or_odd_one_is_not_kept() -> None:
    memo: dict[bytes, Request] = {}
    head = LINE + HOST + b"\r\n"
    first, second = everything([head, head], memo)
    assert first is second
    assert list(memo) == [head]
    everything([LINE + HOST + b"X: " + b"a" * 3000 + b"\r\n\r\n"], memo)
    everything([b"GET / HTTP/1.1\nHost: x\n\n"], memo)
    everything([PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], memo)
    everything([LINE + b"Host: x\r\nBad header\r\n\r\n"], memo)
    assert list(memo) == [head]


HEADS = st.sampled_from(
    [
        LINE + HOST + b"\r\n",
        NEXT,
        LINE + HOST + TOKEN + b"\r\n",
        PUT + HOST + TTL + b"\r\n",
        PUT + HOST + TTL + b"Content-Length: 0\r\n\r\n",
        PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        LINE + HOST + b"X: a\r\n b\r\n\r\n",
        LINE + HOST + b"X: a\r\r\n\r\n",
        LINE + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"GET /a%2fb HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\r\n",
        b"GARBAGE\r\n\r\n",
    ]
)
STREAMS = st.one_of(
    st.lists(HEADS, min_size=1, max_size=4).map(b"".join),
    st.tuples(HEADS, st.binary(max_size=30), HEADS).map(b"".join),
    st.binary(max_size=100),
)


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({min(cut, len(raw)) for cut in cuts}), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(edges)]


@given(raw=STREAMS, cuts=st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=500)
def test_pieces_are_read_as_the_whole_is(raw: bytes, cuts: list[int]) -> None:
    assert everything(split(raw, cuts)) == everything([raw])


@pytest.mark.parametrize(
    "raw",
    [
        LINE + HOST + TOKEN + b"\r\n" + NEXT,
        PUT + HOST + TTL + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT,
        LINE + HOST + b"X: a\r\n b\r\n\r\n" + NEXT,
        b"GET / HTTP/1.1\nHost: x\n\n" + NEXT,
    ],
)
def test_a_stream_split_at_any_byte_or_at_every_byte_reads_the_same(raw: bytes) -> None:
    whole = everything([raw])
    for cut in range(1, len(raw)):
        assert everything([raw[:cut], raw[cut:]]) == whole
    assert everything([raw[n : n + 1] for n in range(len(raw))]) == whole


@given(where=st.integers(0, 120), what=st.sampled_from([b"\x00", b"\r", b"\n", b"\x0b", b"\x0c", b"\x80\n"]))
@settings(max_examples=500)
def test_no_stray_byte_in_a_head_is_let_through(where: int, what: bytes) -> None:
    raw = LINE + HOST + b"X-One: two three\r\n" + TOKEN + b"\r\n"
    broken = raw[:where] + what + raw[where:]
    for event in everything([broken]):
        if isinstance(event, Request):
            head = broken[: broken.index(b"\n\r\n") + 3] if b"\n\r\n" in broken else broken
            assert b"\x00" not in head
            assert b"\r" not in head.replace(b"\r\n", b"")


@given(streams=st.lists(STREAMS, min_size=1, max_size=6))
def test_a_memo_that_is_shared_changes_nothing(streams: list[bytes]) -> None:
    memo: dict[bytes, Request] = {}
    for raw in (*streams, *streams):
        assert everything([raw], memo) == everything([raw])


@given(raw=STREAMS)
@settings(max_examples=500)
def test_h11_agrees_on_every_request_that_was_let_through(raw: bytes) -> None:
    """Straight from h11, one connection for the stream: the same methods and targets in the same order."""
    ours = [event for event in everything([raw]) if isinstance(event, Request)]
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    for request in ours:
        event = server.next_event()
        assert isinstance(event, h11.Request)
        assert event.method.decode() == request.method
        assert canonical_target(event.target) == request.target
        assert isinstance(server.next_event(), h11.EndOfMessage)
        if server.their_state is h11.MUST_CLOSE or not request.keep_alive:
            break
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()


@pytest.mark.parametrize(("method", "detail"), [(b"DELETE", "DELETE"), (b"Zm9v" * 10, "")])
def test_a_method_is_told_unless_it_is_so_long_that_it_may_be_a_secret(method: bytes, detail: str) -> None:
    parser = reader()
    parser.feed(method + b" /latest/user-data HTTP/1.1\r\n" + HOST + b"\r\n")
    with pytest.raises(Refused) as caught:
        parser.next()
    assert caught.value.detail == detail
