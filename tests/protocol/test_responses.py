"""Answers as bytes: small heads, a length always, nothing chunked."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.errors import DEADLINE, METHOD, REFUSALS, TOKEN_TTL, Refusal
from imds_proxy.protocol.responses import Answer, plain, refusal_answer


def parsed(raw: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return response, body


@given(body=st.binary(max_size=300), keep=st.booleans())
def test_what_is_encoded_reads_back(body: bytes, keep: bool) -> None:
    response, heard = parsed(plain(200, body).encode(head_only=False, keep_alive=keep))
    headers = dict(response.headers)
    assert heard == body
    assert headers[b"content-length"] == b"%d" % len(body)
    assert b"transfer-encoding" not in headers
    assert headers.get(b"connection") == (None if keep else b"close")


def test_a_head_answer_has_the_length_of_the_body_and_no_body() -> None:
    response, body = parsed(plain(200, b"12345").encode(head_only=True, keep_alive=True), "HEAD")
    assert dict(response.headers)[b"content-length"] == b"5"
    assert body == b""


def test_a_small_value_fits_the_first_kilobyte_with_its_head() -> None:
    assert len(plain(200, b"x" * 800).encode(head_only=False, keep_alive=False)) <= 1024


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.slug)
def test_a_refusal_names_itself_in_head_and_body(refusal: Refusal) -> None:
    answer = refusal_answer(refusal)
    response, body = parsed(answer.encode(head_only=False, keep_alive=False))
    headers = dict(response.headers)
    assert response.status_code == refusal.status
    assert headers[b"x-imds-proxy"] == refusal.slug.encode()
    assert f"imds-proxy: {refusal.slug}: {refusal.sentence}".encode() in body
    assert headers[b"content-type"] == b"text/html"
    assert (b"retry-after" in headers) is (refusal.status == 503)


def test_retry_after_is_whole_seconds() -> None:
    assert (b"Retry-After", b"1") in refusal_answer(DEADLINE).headers
    assert (b"Retry-After", b"7") in refusal_answer(DEADLINE, 7).headers


def test_titles_are_those_of_the_service() -> None:
    assert b"<title>400 - Missing or Invalid Parameters</title>" in refusal_answer(TOKEN_TTL).body
    assert b"<title>405 - Method Not Allowed</title>" in refusal_answer(METHOD).body


def test_an_answer_of_the_service_keeps_its_reason_and_headers() -> None:
    answer = Answer(404, b"Nope", ((b"Content-Type", b"text/x"),), b"gone")
    assert answer.encode(head_only=False, keep_alive=True) == (
        b"HTTP/1.1 404 Nope\r\nContent-Type: text/x\r\nContent-Length: 4\r\n\r\ngone"
    )
