"""Plain answers and requests: what is read or written without h11 is what h11 reads and writes."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.upstream.plainanswer import PlainHead, PlainHeads, header_lines, request_line

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b c\r\nEmpty:\r\n\r\nabc"
PIECES = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 404 Not Found\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 200\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 03\r\n",
    b"content-length:3\r\n",
    b"Content-Length: 3, 3\r\n",
    b"Content-Length: +3\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: Keep-Alive\r\n",
    b"Connection: keep-alive, close\r\n",
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
    b"X: \xe4\r\n",
    b"X:  a\t\r\n",
    b" folded\r\n",
    b"X: a\n",
    b"\r\n",
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
)


def asked() -> h11.Connection:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/latest/", headers=[("Host", "a")]))
    http.send(h11.EndOfMessage())
    return http


def plain_answer(data: bytes) -> tuple[PlainHead, bytes] | None:
    """What is read of an answer whose head is met for the first time, and what when it comes again."""
    heads = PlainHeads()
    found = heads.read(data)
    assert heads.read(data) == found
    return found


def by_h11(data: bytes) -> tuple[PlainHead, bytes]:
    """What h11 says of an answer that is whole, with nothing after it. Raises RemoteProtocolError."""
    http = asked()
    http.receive_data(data)
    response, body = http.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := http.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert http.trailing_data[0] == b""
    assert (http.our_state, http.their_state) == (h11.DONE, h11.DONE), "the connection goes on"
    headers = tuple(response.headers)
    return PlainHead(response.status_code, bytes(response.reason), headers, len(body)), body


def test_a_plain_answer_is_read_as_h11_reads_it() -> None:
    assert plain_answer(PLAIN) == by_h11(PLAIN)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join))
def test_what_is_taken_for_plain_h11_reads_alike(data: bytes) -> None:
    found = plain_answer(data)
    assert found is None or found == by_h11(data)


@given(st.integers(0, len(PLAIN) - 1), st.binary(max_size=3))
def test_an_answer_with_other_bytes_in_it_too(at: int, other: bytes) -> None:
    data = PLAIN[:at] + other + PLAIN[at + len(other) :]
    found = plain_answer(data)
    assert found is None or found == by_h11(data)


@pytest.mark.parametrize("end", range(len(PLAIN)))
def test_part_of_an_answer_is_none(end: int) -> None:
    assert plain_answer(PLAIN[:end]) is None


def test_more_than_an_answer_is_none() -> None:
    assert plain_answer(PLAIN + PLAIN) is None


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_request_is_written_as_h11_writes_it(method: str) -> None:
    headers = ((b"Host", b"100.100.100.200"), (b"X-aliyun-ecs-metadata-token", b"AB=="))
    target = "/latest/meta-data/mac?a=b"
    http = h11.Connection(h11.CLIENT)
    expected = http.send(h11.Request(method=method, target=target, headers=list(headers)))
    assert request_line(method, target) + header_lines(headers) == expected


@pytest.mark.parametrize(
    ("target", "value"),
    [("/a b", b"x"), ("/a\r\nX: y", b"x"), ("/", b"x\r\nY: z"), ("/", b"x\n"), ("/", b"x\r"), ("/", b"\0")],
)
def test_nothing_is_slipped_into_a_request(target: str, value: bytes) -> None:
    with pytest.raises(ValueError, match="that is none"):
        request_line("GET", target) + header_lines(((b"Host", b"a"), (b"X", value)))


def test_a_known_head_with_another_body_is_read_anew() -> None:
    heads = PlainHeads()
    first, second = heads.read(PLAIN), heads.read(PLAIN[:-3] + b"xyz")
    assert first is not None
    assert second is not None
    assert second[0] is first[0]
    assert (first[1], second[1]) == (b"abc", b"xyz")
    assert heads.read(PLAIN[:-1]) is None
    assert heads.read(PLAIN + b"d") is None


def test_heads_are_remembered_in_bounds() -> None:
    heads = PlainHeads()
    first = heads.read(PLAIN)
    for number in range(127):
        heads.read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: %d\r\n\r\nabc" % number)
    again = heads.read(PLAIN)
    assert first is not None
    assert again is not None
    assert again[0] is first[0]
    heads.read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: more\r\n\r\nabc")
    again = heads.read(PLAIN)
    assert again is not None
    assert again[0] is not first[0]
