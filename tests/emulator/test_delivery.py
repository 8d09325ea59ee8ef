import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imds_proxy.emulator.service import Emulator

PATH = "/latest/meta-data/instance-id"
VALUE = b"i-bp1emulated0000000001"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def test_reset_leaves_no_answer(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="reset")
    client = wire(emulator.address)
    with pytest.raises(ConnectionResetError):
        client.get(PATH)


def test_reset_mid_body_leaves_half_the_body_and_an_error(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="reset_mid_body")
    client = wire(emulator.address)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += client.socket.recv(1)
    assert got.partition(b"\r\n\r\n")[2] == VALUE[: len(VALUE) // 2]


def test_half_body_ends_cleanly_too_soon(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="half_body")
    client = wire(emulator.address)
    reply = client.get(PATH)
    assert reply.headers["content-length"] == str(len(VALUE))
    assert reply.body == VALUE[: len(VALUE) // 2]


def test_a_half_answer_to_head_is_half_a_head(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="half_body")
    with pytest.raises(EOFError):
        wire(emulator.address).ask(f"HEAD {PATH} HTTP/1.1")


def test_hang_answers_once_the_fault_is_cleared(
    emulator: Emulator, wire: Any, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    emulator.patch(fault="hang")
    client = wire(emulator.address)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    eventually(lambda: emulator.counters().v1_gets == 1)
    client.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(5)
    emulator.patch(fault=None)
    assert client.socket.recv(12) == b"HTTP/1.1 200"


def test_hang_notices_a_client_that_leaves_and_holds_up_no_stop(
    emulator: Emulator, wire: Any, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    emulator.patch(fault="hang")
    leaver, stayer = wire(emulator.address), wire(emulator.address)
    for client in (leaver, stayer):
        client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    eventually(lambda: emulator.counters().v1_gets == 2)
    leaver.close()
    eventually(lambda: emulator.open_connections == 1)
    start = time.monotonic()
    emulator.stop()
    assert time.monotonic() - start < 0.9
    assert stayer.rest() == b""


def test_drip_comes_byte_by_byte_until_the_fault_is_cleared(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="drip")
    client = wire(emulator.address)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    start = time.monotonic()
    assert [client.socket.recv(100), client.socket.recv(100), client.socket.recv(100)] == [b"H", b"T", b"T"]
    assert time.monotonic() - start >= 0.4
    emulator.patch(fault=None)
    assert client.read(after=b"HTT").body == VALUE


def test_close_each_answers_and_closes_and_says_so(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="close_each")
    client = wire(emulator.address)
    reply = client.get(PATH)
    assert (reply.headers["connection"], reply.body, client.rest()) == ("close", VALUE, b"")


def test_chunked_frames_the_body_in_chunks_and_keeps_the_connection(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="chunked")
    client = wire(emulator.address)
    for _ in range(2):
        assert client.get(PATH).headers["transfer-encoding"] == "chunked"
        body = b""
        while size := int(client.stream.readline(), 16):
            body += client.stream.read(size)
            client.stream.readline()
        client.stream.readline()
        assert body == VALUE


def test_garbage_is_no_http(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="garbage")
    client = wire(emulator.address)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    answer = client.rest()
    assert answer and not answer.startswith(b"HTTP/")


def test_latency_delays_an_answer(emulator: Emulator, wire: Any) -> None:
    emulator.patch(latency=0.15)
    start = time.monotonic()
    assert wire(emulator.address).get(PATH).status == 200
    assert 0.15 <= time.monotonic() - start < 2


def test_a_service_that_does_not_accept_answers_when_it_does_again(emulator: Emulator, wire: Any) -> None:
    emulator.patch(fault="no_accept")
    client = wire(emulator.address)
    client.socket.settimeout(0.2)
    client.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    emulator.patch(fault=None)
    client.socket.settimeout(5)
    assert client.socket.recv(8) == b"HTTP/1.1"
