#!/usr/bin/env python3
"""The physical floor of a Python server: constant bytes for whatever comes, one answer for each read."""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 22\r\n\r\ni-bp1234567890abcdefgh"


class Constant(asyncio.Protocol):
    """Reads nothing of what it is told."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """One answer."""
        self._transport.write(_ANSWER)
        if b"\r\nConnection: close" in data:
            self._transport.close()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0, backlog=4096)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(_serve())
