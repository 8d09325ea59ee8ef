"""One caller's connection: bytes in, requests to the service, answers out in order.

Thin: h11 reads, the service answers; here is only what a connection is (keep-alive, pipelining,
back-pressure, time limits).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Hashable, Iterable, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from cachetools import LRUCache

from imds_proxy.errors import HEAD_TIMEOUT, TOO_MANY_CONNECTIONS, Refused
from imds_proxy.policy.caller import Caller
from imds_proxy.protocol.request import HeadRules, Request, RequestReader, Signal
from imds_proxy.protocol.responses import CONTINUE, Answer, refusal_answer
from imds_proxy.server.connections import ConnectionRegister
from imds_proxy.server.service import DecisionMemos, Peer, Service

_MAX_BUFFERED = 65536  # bytes of requests that wait for their turn
_LINGER = 1.0  # seconds for a refused caller to read why


class Attribution(Protocol):
    """Names the other end of an accepted connection."""

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        """The caller, at once where that is cheap, else a coroutine for it; never raises."""

    async def holders(self, accepted: socket.socket, peer: object) -> tuple[Caller, ...]:
        """The processes that hold the caller's end of the connection now. Raises Refused."""

    @property
    def epoch(self) -> int:
        """Which naming of callers is in force: those named in an earlier one are to be named again."""


class Memos:
    """What h11 said of heads, bounded for each caller, so that unique heads of one cannot evict the rest."""

    def __init__(self, callers: int = 256, heads: int = 64) -> None:
        self._heads = heads
        self._memos: LRUCache[Hashable, LRUCache[bytes, Request]] = LRUCache(callers)

    def of(self, caller: Hashable) -> MutableMapping[bytes, Request]:
        """The memo of one caller."""
        memo: LRUCache[bytes, Request] | None = self._memos.get(caller)
        if memo is None:
            memo = self._memos[caller] = LRUCache(self._heads)
        return memo


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: a head must be whole within `head`, an idle connection closes after `idle`, one whose
    client does not read after `write`."""

    head: float
    idle: float
    write: float


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of the daemon share."""

    rules: HeadRules
    service: Service
    attribution: Attribution
    register: ConnectionRegister[CallerConnection]
    memos: Memos
    times: Times
    hosts: Callable[[object], frozenset[bytes]]
    clock: Callable[[], float]
    decisions: DecisionMemos = field(default_factory=DecisionMemos)


class CallerConnection(asyncio.Protocol):
    """A connection from accept to close. One request is answered at a time, in order."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._reader = RequestReader(shared.rules, {})
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._current: Request | None = None
        self._blocked = False
        self._draining = self._ended = self._paused = self._lingering = False
        self._since = self._arrived = 0.0
        self._epoch = 0

    @property
    def idle(self) -> bool:
        """Whether no request is being answered (half a head is no request)."""
        return self._current is None and not self._blocked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted: looked up before a byte is read, since a caller that exits loses its name."""
        self._transport = cast(asyncio.Transport, transport)
        self._since = self._arrived = self._shared.clock()
        if not self._shared.register.admit(self):
            # Not in the register, so nothing would end its lingering.
            answer = refusal_answer(TOO_MANY_CONNECTIONS)
            self._transport.write(answer.encode(head_only=False, keep_alive=False))
            self._transport.close()
            return
        self._ask_who(self._transport)

    def _ask_who(self, transport: asyncio.Transport) -> None:
        self._peer, self._epoch = None, self._shared.attribution.epoch
        accepted = transport.get_extra_info("socket")
        caller = self._shared.attribution.begin(accepted, transport.get_extra_info("peername"))
        if isinstance(caller, Caller):
            self._know(caller, accepted)
        else:
            self._task = asyncio.get_running_loop().create_task(caller)
            self._task.add_done_callback(lambda task: self._resolved(task, accepted))

    def data_received(self, data: bytes) -> None:
        """Bytes of the caller."""
        if self._lingering:
            return
        self._arrived = self._shared.clock()
        if not self._reader.partial:
            self._since = self._arrived
        self._reader.feed(data)
        if self._current is None and self._peer is not None:
            if self._epoch != self._shared.attribution.epoch and self._transport is not None:
                self._ask_who(self._transport)
            else:
                self._advance()
        if self._reader.buffered > _MAX_BUFFERED and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The caller sends no more; it may still read (`nc` half-closes), so what is owed is paid."""
        self._ended = True
        if self._current is not None and self._peer is not None:
            self._shared.service.abandoned(self._peer, self._current)
        return self._current is not None or self._peer is None or self._blocked

    def pause_writing(self) -> None:
        """The caller does not read: nothing more is answered until it does."""
        self._blocked = True
        self._since = self._shared.clock()

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._blocked = False
        self._since = self._shared.clock()
        if self._current is None and self._peer is not None:
            self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed by either side. What was asked goes on: it is counted, and others may wait for it."""
        self._shared.register.gone(self)
        if self._current is not None and self._peer is not None:
            self._shared.service.abandoned(self._peer, self._current)
        self._transport = None

    def evict(self) -> None:
        """Closes an idle connection to make room."""
        self._shared.register.gone(self)
        if self._transport is not None:
            self._transport.abort() if self._blocked else self._transport.close()

    def drain(self) -> None:
        """The next answer is the last."""
        self._draining = True

    def close_if_idle(self) -> None:
        """Closes unless a request is being answered, or may be once its caller is known."""
        if self.idle and self._peer is not None and self._transport is not None:
            self._transport.close()

    def check_times(self, now: float) -> None:
        """Closes the connection when it is over one of its time limits."""
        if self._transport is None or self._current is not None:
            return
        waited = now - self._since
        if self._lingering:
            if waited > _LINGER:
                self._transport.abort()
        elif self._blocked:
            if waited > self._shared.times.write:
                self._transport.abort()
        elif self._reader.partial:
            if waited > self._shared.times.head:
                self._say_and_close(refusal_answer(HEAD_TIMEOUT))
        elif waited > self._shared.times.idle:
            self._transport.close()

    def _resolved(self, task: asyncio.Task[Caller], accepted: socket.socket) -> None:
        self._task = None
        if self._transport is not None and not task.cancelled():
            self._know(task.result(), accepted)

    def _know(self, caller: Caller, accepted: socket.socket) -> None:
        if not self._shared.register.assign(self, caller.identity):
            self._say_and_close(refusal_answer(TOO_MANY_CONNECTIONS))
            return
        self._reader.memo = self._shared.memos.of(caller.identity)
        attribution, transport = self._shared.attribution, self._transport
        ends = [transport.get_extra_info(f"{one}name") if transport else None for one in ("peer", "sock")]
        self._peer = Peer(
            caller,
            self._shared.hosts(ends[1]),
            self._shared.decisions.of(caller),
            partial(attribution.holders, accepted, ends[0]),
            self._shared.service.events.tally_of(caller),
        )
        self._advance()

    def _advance(self) -> None:
        """Answers what has come, one write for all that needs no waiting."""
        peer, transport = self._peer, self._transport
        if peer is None or transport is None or self._lingering:
            return
        out: list[bytes] = []
        while not self._blocked:
            try:
                request = self._reader.next()
            except Refused as error:
                self._shared.service.events.refused_unread(error.refusal, peer.caller, error.detail)
                self._say_and_close(refusal_answer(error.refusal), out)
                return
            if isinstance(request, Signal):
                if request is Signal.SEND_CONTINUE:
                    out.append(CONTINUE)
                break
            result = self._shared.service.begin(request, peer, self._arrived)
            if not isinstance(result, Answer):
                self._current = request
                self._task = asyncio.get_running_loop().create_task(result)
                self._task.add_done_callback(partial(self._answered, request))
                break
            out.append(self._encode(request, result))
            if self._closes_after(request):
                self._draining = True
                break
        if out:
            transport.write(b"".join(out))
        if self._current is None:
            self._rest()

    def _answered(self, request: Request, task: asyncio.Task[Answer]) -> None:
        self._task = self._current = None
        if self._transport is None or task.cancelled():
            return
        answer = task.result()
        self._transport.write(self._encode(request, answer))
        if self._closes_after(request):
            self._draining = True
            self._rest()
        else:
            self._advance()

    def _rest(self) -> None:
        """Nothing is being answered: close, or wait for more."""
        if self._transport is None:
            return
        if self._draining or (self._ended and not self._blocked):
            self._transport.close()
            return
        if not self._reader.partial:  # else its time counts from its first byte
            self._since = self._shared.clock()
        self._shared.register.touch(self)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _encode(self, request: Request, answer: Answer) -> bytes:
        return answer.encode(head_only=request.method == "HEAD", keep_alive=not self._closes_after(request))

    def _closes_after(self, request: Request) -> bool:
        return self._draining or not request.keep_alive

    def _say_and_close(self, answer: Answer, before: Iterable[bytes] = ()) -> None:
        """The last answer. Closes when the caller has closed, or soon: a close at once would be a reset,
        and take the answer from a caller that is still sending."""
        if self._transport is None or self._lingering:
            return
        self._lingering = self._draining = True
        self._since = self._shared.clock()
        self._transport.write(b"".join((*before, answer.encode(head_only=False, keep_alive=False))))
        self._transport.write_eof()
