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
from functools import partial
from typing import NamedTuple

from imds_proxy.errors import DEADLINE, UNREACHABLE, UPSTREAM_BROKEN, Refused
from imds_proxy.upstream.exchange import StaleConnection, Told, UpstreamAnswer, UpstreamConnection
from imds_proxy.upstream.flight import follow
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.plainanswer import Headers, PlainHeads
from imds_proxy.upstream.traffic import Traffic

_RETRY_CONNECT = 0.05  # seconds between tries to connect to a service that is restarting
_MAX_WAITING = 4096
_OVERLOADED = (429, 503)
_NOT_FREE = "no connection to the service was free in time"
_SO_MARK = 36  # asm-generic/socket.h


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds, sizes in bytes. `patience` is how long a caller may wait in all."""

    connections: int
    connect_timeout: float
    read_timeout: float
    patience: float
    max_body: int


class _Question(NamedTuple):
    """A GET whose turn was taken, until when it is worth an answer, and who is told of it."""

    target: str
    headers: Headers
    until: float
    told: Told

    def __repr__(self) -> str:
        """Without the headers, which hold a token."""
        return f"_Question({self.target!r})"


_Waiting = tuple[float, Callable[[], bool], Callable[[], None]]
"""Until when it waits for a place, tells whether it takes one, and is told that none was free in time."""


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
        self._heads = PlainHeads()
        self._idle: deque[UpstreamConnection] = deque()
        self._open = 0
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._down_since: float | None = None
        self._retry_at, self._why_down = 0.0, ""
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections are open, usable and not in use."""
        return sum(connection.usable for connection in self._idle)

    @property
    def ready(self) -> bool:
        """Whether a GET needs no connection of its own: there is one for it, or one will be free."""
        if self._open >= self._limits.connections:
            return len(self._waiting) < _MAX_WAITING
        while self._idle and not self._idle[-1].usable:
            self._idle.pop()
        return bool(self._idle)

    def ask(self, target: str, headers: Headers, told: Told) -> None:
        """A GET whose turn was taken before, while the pool is `ready`: costs no task. `told` gets what `get`
        would return or raise, never before this returns."""
        now = self._clock()
        question = _Question(target, headers, now + self._limits.patience, told)
        if self._open < self._limits.connections:
            self._send(question, self._idle[-1], now)
            self._idle.pop()
            self._open += 1
            return
        late = partial(told, Refused(DEADLINE, _NOT_FREE))
        self._waiting.append((question.until, partial(self._send_later, question), late))
        if self._timer is None:
            wait = self._limits.patience
            self._timer = asyncio.get_running_loop().call_later(wait, self._look_at_time)

    def _look_at_time(self) -> None:
        """Whoever asks waits as long as all others do: they are late in their order."""
        try:
            while self._waiting and self._waiting[0][0] <= self._clock():
                self._waiting.popleft()[2]()  # who is told may ask again
        finally:
            self._timer = None
            if self._waiting:
                wait = max(0.0, self._waiting[0][0] - self._clock())
                self._timer = asyncio.get_running_loop().call_later(wait, self._look_at_time)

    def _send_later(self, question: _Question) -> bool:
        """At a place that is free now, which it takes."""
        connection = self._take_idle()
        if connection is None:
            self._go_on(question, placed=True)
        else:
            self._send(question, connection, self._clock())
        return True

    def _send(self, question: _Question, connection: UpstreamConnection, sent_at: float) -> None:
        over = partial(self._over, question, connection, sent_at)
        connection.ask("GET", question.target, question.headers, self._limits.read_timeout, over)

    def _go_on(self, question: _Question, *, placed: bool) -> None:
        """In a task: with a connection of its own at its place, or after a turn of its own."""
        target, headers, until, told = question
        follow(self._get("GET", target, headers, until, paid=placed, placed=placed), told)

    def _over(
        self,
        question: _Question,
        connection: UpstreamConnection,
        sent_at: float,
        result: UpstreamAnswer | Exception,
    ) -> None:
        if isinstance(result, UpstreamAnswer) and result.answer.status not in _OVERLOADED:  # nearly always
            self._traffic.answered("GET", result.answer.status)
            self._leave(connection)
            question.told(result)
            return
        if isinstance(result, StaleConnection):
            self._go_on(question, placed=True)
            return
        result = self._judged("GET", sent_at, result)
        self._leave(connection)
        if self._again(result, question.until):
            self._go_on(question, placed=False)
        else:
            question.told(result)

    async def get(self, method: str, target: str, headers: Headers, *, paid: bool = False) -> UpstreamAnswer:
        """An idempotent exchange, in its turn unless that was taken before (`paid`). Raises Refused.

        Tried again when the pooled connection turns out stale, and while the service throttles and patience
        allows.
        """
        return await self._get(method, target, headers, self._clock() + self._limits.patience, paid=paid)

    async def _get(
        self,
        method: str,
        target: str,
        headers: Headers,
        until: float,
        *,
        paid: bool,
        placed: bool = False,
    ) -> UpstreamAnswer:
        while True:
            if not placed:
                await self._turn_and_place(until, paid=paid)
            reply = await self._exchange(method, target, headers, until, reuse=True)
            if not self._again(reply, until):
                return reply
            paid = placed = False

    def _again(self, reply: UpstreamAnswer | Exception, until: float) -> bool:
        throttled = isinstance(reply, UpstreamAnswer) and reply.answer.status == 429
        return throttled and self._gate is not None and self._clock() < until

    async def put(self, target: str, headers: Headers) -> UpstreamAnswer:
        """A PUT, on a fresh connection always, since it is never repeated. Raises Refused."""
        until = self._clock() + self._limits.patience
        await self._turn_and_place(until, paid=False)
        return await self._exchange("PUT", target, headers, until, reuse=False)

    def close(self) -> None:
        """Drops the idle connections; those in use end with their exchange."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _exchange(
        self,
        method: str,
        target: str,
        headers: Headers,
        until: float,
        *,
        reuse: bool,
    ) -> UpstreamAnswer:
        """At a place that was taken, and is free after it."""
        sent_at = self._clock()
        connection: UpstreamConnection | None = None
        result: UpstreamAnswer | Exception
        try:
            while True:
                try:
                    connection = (self._take_idle() if reuse else None) or await self._connect(until)
                    result = await connection.exchange(method, target, headers, self._limits.read_timeout)
                except StaleConnection:
                    if reuse:
                        continue
                    result = Refused(UPSTREAM_BROKEN, "closed unanswered")
                except (Refused, TimeoutError, asyncio.TimeoutError) as error:
                    result = error
                result = self._judged(method, sent_at, result)
                if isinstance(result, Exception):
                    raise result
                return result
        finally:
            self._leave(connection)

    def _judged(
        self, method: str, sent_at: float, result: UpstreamAnswer | Exception
    ) -> UpstreamAnswer | Exception:
        """Counts what came of a call, and tells the gate of an overload."""
        if isinstance(result, UpstreamAnswer):
            if result.answer.status in _OVERLOADED and self._gate is not None:
                self._gate.overloaded(sent_at, result.retry_after)
            self._traffic.answered(method, result.answer.status)
        elif isinstance(result, (TimeoutError, asyncio.TimeoutError)):
            if self._gate is not None:
                self._gate.overloaded(sent_at, None)
            result = Refused(DEADLINE, "upstream.read_timeout")
        if isinstance(result, Refused):
            self._traffic.failed(method, result)
        return result

    def _take_idle(self) -> UpstreamConnection | None:
        # The most recently used first: the least likely to have been closed meanwhile.
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _turn_and_place(self, until: float, *, paid: bool) -> None:
        if self._gate is not None and not paid:
            await self._gate.turn(OURS, until)
        await self._enter(until)

    async def _enter(self, until: float) -> None:
        if self._open < self._limits.connections:
            self._open += 1
            return
        if len(self._waiting) >= _MAX_WAITING:
            raise Refused(DEADLINE, "the queue to the service is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((until, partial(_given, turn), _told_by_itself))
        done, _ = await asyncio.wait((turn,), timeout=max(0.0, until - self._clock()))
        if not done:
            turn.cancel()
            raise Refused(DEADLINE, _NOT_FREE)

    def _leave(self, connection: UpstreamConnection | None) -> None:
        if connection is not None and connection.usable:
            if self._closed or len(self._idle) >= self._limits.connections:
                connection.abort()
            else:
                self._idle.append(connection)
        while self._waiting:
            if self._waiting[0][0] <= self._clock():  # told soon, not in the midst of this
                asyncio.get_running_loop().call_soon(self._waiting.popleft()[2])
            elif self._waiting.popleft()[1]():
                return  # the place is handed over
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
                lambda: UpstreamConnection(self._limits.max_body, self._heads), sock=wire
            )
        except BaseException:
            wire.close()
            raise
        return connection


def _given(turn: asyncio.Future[None]) -> bool:
    if turn.done():
        return False
    turn.set_result(None)
    return True


def _told_by_itself() -> None:
    """Who waits in a task looks at the time itself."""


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "connect timed out"
