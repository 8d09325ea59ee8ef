import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from imds_proxy.emulator.service import Emulator

PATH = "/latest/meta-data/instance-id"
VALUE = b"i-bp1emulated0000000001"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def client(emulator: Emulator, wire: Any) -> object:
    return wire(emulator.address)


def test_a_connection_is_kept_over_answers_of_every_kind(client: Any) -> None:
    for _ in range(3):
        assert client.get(PATH).body == VALUE
        assert client.get("/latest/meta-data/nope").status == 404
        assert client.ask("POST / HTTP/1.1", "Content-Length: 0").status == 405
    assert "connection" not in client.get(PATH).headers


def test_a_head_is_small_and_has_a_length_and_never_a_chunk(client: Any) -> None:
    reply = client.get(PATH)
    assert list(reply.headers) == ["server", "date", "content-type", "content-length"]
    assert reply.headers["content-type"] == "text/plain"
    assert len(reply.head) < 160
    assert client.get("/latest/nope").headers["content-type"] == "text/html"


def test_pipelined_requests_are_answered_in_order(client: Any) -> None:
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode() * 2)
    assert [client.read().body for _ in range(4)] == [VALUE, b"2016-01-01\nlatest"] * 2


@pytest.mark.parametrize(
    "head",
    [
        f"GET {PATH} HTTP/1.0\r\n\r\n",
        f"GET {PATH} HTTP/1.0\n\n",
        f"GET {PATH} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n",
    ],
)
def test_the_connection_closes_after_http_1_0_and_on_demand(client: Any, head: str) -> None:
    client.send(head.encode())
    reply = client.read()
    assert (reply.body, reply.headers["connection"], client.rest()) == (VALUE, "close", b"")


def test_a_head_with_bare_line_feeds_and_no_host_is_served(client: Any) -> None:
    client.send(f"\nGET {PATH} HTTP/1.1\nUser-Agent: nc\n\n".encode())
    assert client.read().body == VALUE


def test_a_client_that_finished_sending_is_answered(client: Any) -> None:
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read().body == VALUE
    assert client.rest() == b""


def test_head_is_answered_as_get_without_the_body(client: Any) -> None:
    reply = client.ask(f"HEAD {PATH} HTTP/1.1")
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(VALUE)))
    assert client.get(PATH).body == VALUE


def test_a_token_request_needs_no_length_and_its_token_no_newline(client: Any) -> None:
    token = client.token().body
    assert token.endswith(b"==") and len(token) >= 44 and token.isascii() and not token.split()[1:]
    assert client.get(PATH, f"X-ALIYUN-ECS-METADATA-TOKEN: {token.decode()}").status == 200


def test_a_token_request_with_an_empty_chunked_body_is_told_to_go_on(client: Any) -> None:
    client.send(
        b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"X-aliyun-ecs-metadata-token-ttl-seconds:180\r\nExpect: 100-continue\r\n\r\n"
    )
    assert client.read().status == 100
    client.send(b"0\r\n\r\n")
    assert client.read().status == 200
    assert client.get(PATH).status == 200


def test_an_empty_token_counts_as_none(client: Any) -> None:
    assert client.get(PATH, "X-aliyun-ecs-metadata-token:").status == 200


def test_a_forwarded_token_request_is_refused(client: Any) -> None:
    reply = client.ask("PUT /latest/api/token HTTP/1.1", "X-Forwarded-For: 10.0.0.1")
    assert reply.status == 403 and b"403 - Forbidden" in reply.body


@pytest.mark.parametrize(
    "target",
    [f"http://100.100.100.200{PATH}", f"HTTP://other{PATH}", f"//latest/meta-data//instance-id{'?a=1'}"],
)
def test_absolute_targets_doubled_slashes_and_queries_find_the_item(client: Any, target: str) -> None:
    assert client.get(target).body == VALUE


def test_the_path_is_counted_as_it_came(emulator: Emulator, client: Any) -> None:
    client.get("//latest/Meta-Data%2F?x=1")
    assert emulator.counters().by_path["//latest/Meta-Data%2F"] == 1


def test_the_body_of_a_request_is_skipped(client: Any) -> None:
    client.send(
        f"POST {PATH} HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /"
        f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n".encode()
    )
    assert [client.read().status, client.read().status] == [405, 405]
    assert client.get(PATH).body == VALUE


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / x HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        ("GET /" + "a" * 70_000 + " HTTP/1.1\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 431),
    ],
)
def test_what_is_no_request_gets_an_error_page_and_the_end(client: Any, head: str, status: int) -> None:
    client.send(head.encode())
    reply = client.read()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert reply.body.startswith(b'<?xml version="1.0" encoding="iso-8859-1"?>')


def test_without_keep_alive_every_answer_closes(wire: Any) -> None:
    with Emulator() as emulator:
        emulator.patch(keep_alive=False)
        client = wire(emulator.address)
        assert client.get(PATH).headers["connection"] == "close"
        assert client.rest() == b""


def test_the_date_is_the_emulator_s_own(wire: Any) -> None:
    with Emulator() as emulator:
        emulator.patch(clock_offset=-20 * 365 * 86400)
        assert int(wire(emulator.address).get(PATH).headers["date"].split()[3]) < 2020


def test_a_log_has_a_line_per_request_with_nothing_unprintable(wire: Any) -> None:
    lines: list[str] = []
    with Emulator(log=lines.append) as emulator:
        client = wire(emulator.address)
        client.get(PATH)
        client.send(b"GET /\x1b[31m HTTP/1.1\r\n\r\n")
        client.read()
    assert f'"GET {PATH} HTTP/1.1" 200 {len(VALUE)}' in lines[0]
    assert "\\x1b[31m" in lines[1]


def test_a_thousand_connections_at_once_are_all_served(emulator: Emulator) -> None:
    sockets = [socket.create_connection(emulator.address, timeout=10) for _ in range(1000)]
    try:
        request = f"GET {PATH} HTTP/1.0\r\n\r\n".encode()
        for each in sockets:
            each.sendall(request)
        for each in sockets:
            with each.makefile("rb") as stream:
                assert stream.read().endswith(VALUE)
    finally:
        for each in sockets:
            each.close()


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"GET /latest/", b"PUT "]))
def test_no_bytes_break_it(emulator: Emulator, data: bytes, start: bytes) -> None:
    threads = threading.active_count()
    with socket.create_connection(emulator.address, timeout=5) as connection:
        connection.sendall(start + data)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert threading.active_count() <= threads + 2
