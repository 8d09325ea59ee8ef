"""The monitoring port answers three paths to whoever names it rightly, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from imds_proxy.server.fleetport import FleetPort, Page, by_path

HOST = "127.0.0.1"


def talk(*heads: bytes, names: frozenset[str] = frozenset()) -> list[bytes]:
    """What a port with one page answers to each head, on a connection of its own; `%p` is its port."""

    async def page() -> Page:
        return Page(200, b"fine\n")

    async def main() -> list[bytes]:
        port = FleetPort(by_path({"/healthz": page}), names)
        _, number = await port.open(HOST, 0)
        answers = []
        for head in heads:
            reader, writer = await asyncio.open_connection(HOST, number)
            writer.write(head.replace(b"%p", str(number).encode()))
            answers.append(await asyncio.wait_for(reader.read(), 10))
            writer.close()
        await port.close()
        return answers

    return asyncio.run(main())


def head(method: str = "GET", path: str = "/healthz", host: str = "127.0.0.1:%p") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def test_a_page_is_answered_and_the_connection_closed() -> None:
    (answer,) = talk(head())
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nfine\n")


def test_head_has_the_length_and_no_body() -> None:
    (answer,) = talk(head("HEAD"))
    assert b"content-length: 5" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "host", ["evil.example:%p", "evil.example", "127.0.0.1", "127.0.0.2:%p", "", "[::1]:%p"]
)
def test_a_foreign_host_gets_nothing(host: str) -> None:
    (answer,) = talk(head(host=host))
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"fine" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1:%p", "LocalHost:%p", "node-1.example:%p"])
def test_the_address_localhost_and_configured_names_are_ours(host: str) -> None:
    (answer,) = talk(head(host=host), names=frozenset({"node-1.example"}))
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (head("POST"), b"405"),
        (head(path="/"), b"404"),
        (head(path="/latest/meta-data/"), b"404"),
        (head(path="/healthz/../metrics"), b"404"),
        (head(path="http://127.0.0.1/healthz"), b"404"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%p\r\nHost: 127.0.0.1:%p\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"403"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"GET /" + b"x" * 20000, b"431"),
    ],
)
def test_anything_else_is_refused(raw: bytes, status: bytes) -> None:
    (answer,) = talk(raw)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:80]


def test_one_connection_is_one_request() -> None:
    (answer,) = talk(head() + head())
    assert answer.count(b"HTTP/1.1") == 1


def test_who_says_nothing_is_dropped_and_does_not_hold_the_place_of_others() -> None:
    async def page() -> Page:
        return Page(200, b"fine\n")

    async def main(pages: dict[str, Callable[[], Awaitable[Page]]]) -> bytes:
        port = FleetPort(by_path(pages))
        _, number = await port.open(HOST, 0)
        silent = [await asyncio.open_connection(HOST, number) for _ in range(80)]
        first_over = await asyncio.wait_for(silent[70][0].read(), 10)
        assert first_over == b"", "over the limit: closed at once"
        assert await asyncio.wait_for(silent[0][0].read(), 10) == b"", "closed when its time is over"
        reader, writer = await asyncio.open_connection(HOST, number)
        writer.write(head().replace(b"%p", str(number).encode()))
        answer = await asyncio.wait_for(reader.read(), 10)
        for _, one in (*silent, (reader, writer)):
            one.close()
        await port.close()
        return answer

    assert asyncio.run(main({"/healthz": page})).startswith(b"HTTP/1.1 200")
