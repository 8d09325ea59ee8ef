#!/usr/bin/env python3
"""A metadata service that costs little: a token for a PUT, a short value for a GET, each after `--delay` ms.

`GET /count` tells how many calls came. What the bench puts behind every proxy.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\n"
_VALUE = b"i-bp1234567890abcdefgh"
_TOKEN = b"YmVuY2gtdG9rZW4t%012d=="  # another one for each PUT, as the service does


class Service(asyncio.Protocol):
    """One connection; requests without bodies."""

    delay = 0.0
    calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._transport, self._buffer = cast(asyncio.Transport, transport), b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        """Answers each whole head."""
        *heads, self._buffer = (self._buffer + data).split(b"\r\n\r\n")
        for head in heads:
            if head.startswith(b"GET /count"):
                self._answer(b"%d" % Service.calls)
                continue
            Service.calls += 1
            body = _TOKEN % Service.calls if head.startswith(b"PUT") else _VALUE
            if Service.delay:
                self._loop.call_later(Service.delay, self._answer, body)
            else:
                self._answer(body)

    def _answer(self, body: bytes) -> None:
        self._transport.write(_HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="MS", help="milliseconds before an answer"
    )
    Service.delay = parser.parse_args().delay / 1000
    uvloop.install()
    asyncio.run(_serve())
