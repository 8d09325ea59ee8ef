"""The port for monitoring: /metrics, /healthz and /readyz, and nothing else.

Whoever can connect may ask, so nothing here tells a secret, a path or a caller. Host is checked, so that a
web page cannot read it through a rebound name. Knows nothing of what is measured.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import h11

_PATIENCE = 5.0  # seconds for a request, and for its answer to be taken
_MOST = 64  # connections
_MAX_HEAD = 8192  # bytes


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered: status, body, content type, further headers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[str, tuple[str, ...]], Awaitable[Page]]
"""The page for the target of a GET or HEAD that named us rightly, and its Cookie headers."""


def by_path(pages: Mapping[str, Callable[[], Awaitable[Page]]]) -> Answer:
    """Answers these paths and no other."""

    async def answer(target: str, _: tuple[str, ...]) -> Page:
        page = pages.get(target)
        return await page() if page else Page(404, f"There is {', '.join(pages)}.\n".encode())

    return answer


class FleetPort:
    """Serves what `answer` says. `names` are further Host values, without a port."""

    def __init__(self, answer: Answer, names: frozenset[str] = frozenset()) -> None:
        self._page, self._names = answer, names | {"localhost"}
        self._open: set[_Visit] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Begins to listen; the address it got. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Visit(self._open, self._answer), host, port
        )
        name: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return name

    async def close(self) -> None:
        """Stops listening and drops who is there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for visit in list(self._open):
            visit.abort()

    async def _answer(self, request: h11.Request, own: tuple[str, int]) -> Page:
        hosts = [value for name, value in request.headers if name == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0].decode("latin-1"), own):
            return Page(403, b"Host must be the address connected to, localhost, or one of `hosts`.\n")
        if request.method not in (b"GET", b"HEAD"):
            return Page(405, b"Only GET and HEAD are accepted.\n")
        cookies = tuple(value.decode("latin-1") for name, value in request.headers if name == b"cookie")
        return await self._page(request.target.decode("latin-1"), cookies)

    def _is_ours(self, host: str, own: tuple[str, int]) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or port.endswith("]"):
            name, port = host, "80"
        if port != str(own[1]):
            return False
        if name.lower() in self._names:
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")) == ipaddress.ip_address(own[0].partition("%")[0])
        except ValueError:
            return False


class _Visit(asyncio.Protocol):
    """One connection: one request, one answer."""

    def __init__(
        self,
        register: set[_Visit],
        answer: Callable[[h11.Request, tuple[str, int]], Awaitable[Page]],
    ) -> None:
        self._register, self._answer = register, answer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._register) >= _MOST:
            self._transport.abort()
            return
        self._register.add(self)
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._register.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Ends it, answered or not."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._request is not None:
            return  # one request a connection; what follows is not read
        try:
            self._http.receive_data(data)
            event: Any = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._say(Page(error.error_status_hint, b"This is not a well-formed HTTP request.\n"))
            return
        if isinstance(event, h11.Request):
            self._request = event
            self._task = asyncio.get_running_loop().create_task(self._serve(event))

    async def _serve(self, request: h11.Request) -> None:
        if self._transport is None:
            return
        own = self._transport.get_extra_info("sockname")
        self._say(await self._answer(request, own[:2]))

    def _say(self, page: Page) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._request = self._request or h11.Request(method="GET", target="/", headers=[("Host", "-")])
        head_only = self._request.method == b"HEAD"
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Connection", "close"),
            *page.headers,
        ]
        out = [self._http.send(h11.Response(status_code=page.status, headers=headers)) or b""]
        if not head_only:
            out.append(self._http.send(h11.Data(data=page.body)) or b"")
        self._transport.write(b"".join(out))
        self._transport.close()
