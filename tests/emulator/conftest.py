"""A raw HTTP client and a way to wait, for the tests of the emulator."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from imds_proxy.emulator.service import Address


@dataclass(frozen=True)
class Reply:
    """What came back: status, headers (lower-case names), body, the whole head as bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes


class Wire:
    """One TCP connection, spoken to in bytes."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.stream = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, line: str, *headers: str) -> Reply:
        self.send("\r\n".join([line, "Host: 100.100.100.200", *headers, "", ""]).encode("latin-1"))
        return self.read(bodiless=line.startswith("HEAD "))

    def get(self, path: str, *headers: str) -> Reply:
        return self.ask(f"GET {path} HTTP/1.1", *headers)

    def token(self, ttl: str = "60") -> Reply:
        return self.ask("PUT /latest/api/token HTTP/1.1", f"X-aliyun-ecs-metadata-token-ttl-seconds: {ttl}")

    def read(self, bodiless: bool = False, after: bytes = b"") -> Reply:
        head = after
        while not head.endswith(b"\r\n\r\n"):
            line = self.stream.readline()
            if not line:
                raise EOFError(head)
            head += line
        status, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b"" if bodiless else self.stream.read(int(headers.get("content-length", "0")))
        return Reply(int(status.split()[1]), headers, body, head)

    def rest(self) -> bytes:
        return self.stream.read()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def wire() -> Iterator[Callable[[Address], Wire]]:
    opened: list[Wire] = []

    def connect(address: Address) -> Wire:
        opened.append(Wire(address))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < end, "did not come true within 5 s"
            time.sleep(0.005)

    return wait
