"""The pool of keep-alive connections to the real service, with limits and a bounded wait.

Retries nothing but a GET on a stale pooled connection, and a connect within the caller's patience.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from imds_proxy.errors import DEADLINE, UNREACHABLE, UPSTREAM_BROKEN, Refused
from imds_proxy.upstream.exchange import StaleConnection, UpstreamAnswer, UpstreamConnection
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.traffic import Traffic

_RETRY_CONNECT = 0.05  # seconds between tries to connect to a service that is restarting
_MAX_WAITING = 4096
_SO_MARK = 36  # asm-generic/socket.h


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds, sizes in bytes. `patience` is how long a caller may wait in all."""

    connections: int
    connect_timeout: float
    read_timeout: float
    patience: float
    max_body: int


class Pool:
    """At most `limits.connections` connections to `host`:`port`; the rest wait, first come first served."""

    def __init__(
        self,
        host: str,
        port: int,
        limits: PoolLimits,
        clock: Callable[[], float],
        gate: UpstreamGate | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """Without a `gate` calls go as they come; `traffic` counts what they come to."""
        self.mark: int | None = None  # SO_MARK of new connections: a redirect of the service lets it through
        self._host, self._port, self._limits, self._clock = host, port, limits, clock
        self._gate = gate
        self._traffic = traffic if traffic is not None else Traffic(clock)
        self._idle: deque[UpstreamConnection] = deque()
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._down_since: float | None = None
        self._retry_at, self._why_down = 0.0, ""
        self._closed = False
        """What the service did last, for people."""

    @property
    def idle(self) -> int:
        """How many connections are open, usable and not in use."""
        return sum(connection.usable for connection in self._idle)

    async def get(
        self, method: str, target: str, headers: tuple[tuple[bytes, bytes], ...], *, paid: bool = False
    ) -> UpstreamAnswer:
        """An idempotent exchange, in its turn unless that was taken before (`paid`). Raises Refused.

        Tried again when the pooled connection turns out stale, and while the service throttles and patience
        allows.
        """
        until = self._clock() + self._limits.patience
        while True:
            reply = await self._exchange(method, target, headers, until, reuse=True, paid=paid)
            if self._gate is None or reply.answer.status != 429 or self._clock() >= until:
                return reply
            paid = False

    async def put(self, target: str, headers: tuple[tuple[bytes, bytes], ...]) -> UpstreamAnswer:
        """A PUT, on a fresh connection always, since it is never repeated. Raises Refused."""
        until = self._clock() + self._limits.patience
        return await self._exchange("PUT", target, headers, until, reuse=False, paid=False)

    def close(self) -> None:
        """Drops the idle connections; those in use end with their exchange."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _exchange(
        self,
        method: str,
        target: str,
        headers: tuple[tuple[bytes, bytes], ...],
        until: float,
        *,
        reuse: bool,
        paid: bool,
    ) -> UpstreamAnswer:
        if self._gate is not None and not paid:
            await self._gate.turn(OURS, until)
        await self._enter(until)
        sent_at = self._clock()
        connection: UpstreamConnection | None = None
        try:
            while True:
                connection = (self._take_idle() if reuse else None) or await self._connect(until)
                try:
                    reply = await connection.exchange(method, target, headers, self._limits.read_timeout)
                except StaleConnection:
                    if not reuse:
                        raise Refused(UPSTREAM_BROKEN, "closed unanswered") from None
                except (TimeoutError, asyncio.TimeoutError):
                    self._overloaded(sent_at, None)
                    raise Refused(DEADLINE, "upstream.read_timeout") from None
                else:
                    if reply.answer.status in (429, 503):
                        self._overloaded(sent_at, reply)
                    self._traffic.answered(method, reply.answer.status)
                    return reply
        except Refused as error:
            self._traffic.failed(method, error)
            raise
        finally:
            self._leave(connection)

    def _overloaded(self, sent_at: float, reply: UpstreamAnswer | None) -> None:
        if self._gate is not None:
            self._gate.overloaded(sent_at, reply.retry_after if reply else None)

    def _take_idle(self) -> UpstreamConnection | None:
        # The most recently used first: the least likely to have been closed meanwhile.
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _enter(self, until: float) -> None:
        if self._open < self._limits.connections:
            self._open += 1
            return
        if len(self._waiting) >= _MAX_WAITING:
            raise Refused(DEADLINE, "the queue to the service is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        done, _ = await asyncio.wait((turn,), timeout=max(0.0, until - self._clock()))
        if not done:
            turn.cancel()
            raise Refused(DEADLINE, "no connection to the service was free in time")

    def _leave(self, connection: UpstreamConnection | None) -> None:
        if connection is not None and connection.usable:
            if self._closed or len(self._idle) >= self._limits.connections:
                connection.abort()
            else:
                self._idle.append(connection)
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place is handed over
                return
        self._open -= 1

    async def _connect(self, until: float) -> UpstreamConnection:
        """A fresh connection. A restart is waited out; an outage longer than that is answered at once.

        While the service is down one try is made each 50 ms, however many wait.
        """
        while True:
            now = self._clock()
            if self._down_since is not None:
                if now < self._retry_at:
                    if self._retry_at >= until or now - self._down_since > self._limits.patience:
                        raise Refused(UNREACHABLE, self._why_down)
                    await asyncio.sleep(self._retry_at - now)
                    continue
                self._retry_at = now + _RETRY_CONNECT
            try:
                connection = await asyncio.wait_for(self._dial(), self._limits.connect_timeout)
            except (OSError, asyncio.TimeoutError) as error:
                now = self._clock()
                if self._down_since is None:
                    self._down_since = now
                self._retry_at, self._why_down = now + _RETRY_CONNECT, _why(error)
            else:
                self._down_since = None
                return connection

    async def _dial(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        wire = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.mark is not None:
                wire.setsockopt(socket.SOL_SOCKET, _SO_MARK, self.mark)
            await loop.sock_connect(wire, (self._host, self._port))
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self._limits.max_body), sock=wire
            )
        except BaseException:
            wire.close()
            raise
        return connection


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "connect timed out"
