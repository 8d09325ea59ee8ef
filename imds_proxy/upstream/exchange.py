"""One connection to the real service: a request out, a whole answer in.

A plain answer that comes in one piece is read as it is, any other by h11. Whatever is cut, too large, unasked
for or not HTTP ends the connection and never reaches a caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import cast

import h11

from imds_proxy.errors import UPSTREAM_BROKEN, UPSTREAM_TOO_LARGE, Refused
from imds_proxy.protocol.responses import Answer
from imds_proxy.upstream.plainanswer import (
    MAX_HEAD,
    Headers,
    PlainHeads,
    header_lines,
    request_line,
)

# Headers that say something of the item; all others are hop-by-hop or the service's own business.
_PASSED = {
    name: name.title()
    for name in (b"content-type", b"date", b"etag", b"last-modified", b"retry-after", b"server")
}
_MAX_INFORMATIONAL = 4


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A whole answer. `location` and `encoding` are for judging it; they never go to a caller."""

    answer: Answer
    location: bytes | None
    encoding: bytes | None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the service wants to be asked again; a date is not taken."""
        value = dict(self.answer.headers).get(b"Retry-After", b"")
        return float(value) if value.isdigit() and len(value) < 10 else None


class StaleConnection(Exception):
    """A pooled connection was closed by the service before it answered a byte."""


Told = Callable[[UpstreamAnswer | Exception], None]
"""Told once what came of a question."""


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection; one exchange at a time."""

    def __init__(self, max_body: int, heads: PlainHeads) -> None:
        self._max_body, self._heads = max_body, heads
        self._loop = asyncio.get_running_loop()
        self._lines: tuple[Headers, bytes] = ((), b"")  # the last headers, and how they are written
        self._until = 0.0
        self._asked: tuple[str, str, Headers] | None = None
        self._http: h11.Connection | None = None  # of this exchange, once its answer is not plain
        self._transport: asyncio.Transport | None = None
        self._told: Told | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._response: h11.Response | None = None
        self._body = bytearray()
        self._informational = 0
        self._heard = False
        self.exchanges = 0
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    async def exchange(self, method: str, target: str, headers: Headers, timeout: float) -> UpstreamAnswer:
        """Sends one bodyless request and returns the whole answer.

        Raises Refused (502) for a broken one, StaleConnection when a reused connection was already
        dead, TimeoutError after `timeout` seconds. The connection is usable again only if `usable`.
        """
        waiter: asyncio.Future[UpstreamAnswer] = asyncio.get_running_loop().create_future()
        self.ask(method, target, headers, timeout, partial(_tell, waiter))
        try:
            return await waiter
        except BaseException:
            self.abort()
            raise

    def ask(self, method: str, target: str, headers: Headers, timeout: float, told: Told) -> None:
        """The same without a wait: `told` gets the answer, or what `exchange` would raise.

        Raises StaleConnection, and tells nobody, where it cannot be asked any more.
        """
        if self._transport is None or self._told is not None or not self.usable:
            raise StaleConnection
        if headers is not self._lines[0]:
            self._lines = headers, header_lines(headers)
        data = request_line(method, target) + self._lines[1]
        self._response, self._heard, self._informational = None, False, 0
        self._body.clear()
        self._asked, self._told = (method, target, headers), told
        self._transport.write(data)
        self._until = self._loop.time() + timeout
        if self._timer is None:
            self._timer = self._loop.call_later(timeout, self._look_at_time)

    def _look_at_time(self) -> None:
        """One timer after the other, not one for each question."""
        self._timer = None
        if self._told is None:
            return
        left = self._until - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_at_time)
        else:
            self._fail(TimeoutError())

    def abort(self) -> None:
        """Drops the connection at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or of nothing that was asked."""
        if self._told is None:
            # Bytes that nobody asked for would be the next caller's answer.
            self.abort()
            return
        plain = self._heads.read(data) if not self._heard and len(data) <= self._max_body else None
        self._heard = True
        if plain is None:
            self._parse(data)
        else:
            head, body = plain
            self._answer(head.status, head.reason, head.headers, body, framed=True)

    def eof_received(self) -> bool:
        """The service will send no more."""
        if self._told is not None:
            if not self._heard:
                self._no_answer()
            else:
                self._parse(b"")
        self.usable = False
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._told is not None:
            if self._heard:
                self._fail(Refused(UPSTREAM_BROKEN, f"cut: {error or 'closed'}"))
            else:
                self._no_answer()

    def _no_answer(self) -> None:
        self._fail(StaleConnection() if self.exchanges else Refused(UPSTREAM_BROKEN, "closed unanswered"))

    def _fail(self, error: Exception) -> None:
        self.abort()
        self._end(error)

    def _end(self, result: UpstreamAnswer | Exception) -> None:
        told, self._told = self._told, None
        if told is None:
            return
        self._asked = self._http = None
        self.exchanges += 1
        told(result)

    def _parse(self, data: bytes) -> None:
        try:
            http = self._http = self._http or self._by_h11()
            http.receive_data(data)
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.EndOfMessage):
                    self._finish(http)
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._fail(Refused(UPSTREAM_BROKEN, str(error)))
        except Refused as error:
            self._fail(error)

    def _by_h11(self) -> h11.Connection:
        """One that believes that it asked what was asked."""
        if self._asked is None:
            raise AssertionError("an answer is to something")
        method, target, headers = self._asked
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        http.send(h11.Request(method=method, target=target, headers=list(headers)))
        http.send(h11.EndOfMessage())
        return http

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> None:
        if isinstance(event, h11.InformationalResponse):
            self._informational += 1
            if event.status_code == 101 or self._informational > _MAX_INFORMATIONAL:
                raise Refused(UPSTREAM_BROKEN, f"status {event.status_code}")
        elif isinstance(event, h11.Response):
            self._response = event
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._max_body:
                raise Refused(UPSTREAM_TOO_LARGE)
        elif isinstance(event, h11.ConnectionClosed):
            raise Refused(UPSTREAM_BROKEN, "closed")

    def _finish(self, http: h11.Connection) -> None:
        response = self._response
        if response is None or self._transport is None:
            raise Refused(UPSTREAM_BROKEN, "no status line")
        if http.trailing_data[0]:
            raise Refused(UPSTREAM_BROKEN, "bytes after the answer")
        headers = dict(response.headers)
        framed = b"content-length" in headers or b"transfer-encoding" in headers
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            self.usable = False
            self._transport.close()
        reason = bytes(response.reason)
        self._answer(response.status_code, reason, tuple(response.headers), bytes(self._body), framed=framed)

    def _answer(self, status: int, reason: bytes, headers: Headers, body: bytes, *, framed: bool) -> None:
        passed, location, encoding = _parts(headers)
        self._end(UpstreamAnswer(Answer(status, reason, passed, body, framed), location, encoding))


@lru_cache(maxsize=128)  # most answers have the headers of others
def _parts(headers: Headers) -> tuple[Headers, bytes | None, bytes | None]:
    """What goes to callers, the location and the encoding."""
    by_name = dict(headers)
    passed = tuple((_PASSED[name], value) for name, value in headers if name in _PASSED)
    return passed, by_name.get(b"location"), by_name.get(b"content-encoding")


def _tell(waiter: asyncio.Future[UpstreamAnswer], result: UpstreamAnswer | Exception) -> None:
    if waiter.done():
        return
    if isinstance(result, Exception):
        waiter.set_exception(result)
    else:
        waiter.set_result(result)
