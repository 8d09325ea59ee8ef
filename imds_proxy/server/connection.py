"""One caller's connection: bytes in, requests to the service, answers out in order.

Thin: h11 reads, the service answers; here is only what a connection is (keep-alive, pipelining,
back-pressure, time limits).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from imds_proxy.errors import HEAD_TIMEOUT, TOO_MANY_CONNECTIONS, Refused
from imds_proxy.policy.caller import Caller
from imds_proxy.protocol.request import Request, RequestReader, Signal
from imds_proxy.protocol.responses import CONTINUE, Answer, refusal_answer
from imds_proxy.server.arrival import Arrival, Back, detached
from imds_proxy.server.peer import Peer
from imds_proxy.server.plans import Failure, Plan, by_heart
from imds_proxy.server.shared import Shared

_MAX_BUFFERED = 65536  # bytes of requests that wait for their turn
_LINGER = 1.0  # seconds for a refused caller to read why
_AT_A_TURN, _H11_COSTS = 16, 16  # pipelined requests that are known; what one costs that h11 reads
_TOUCH = 1.0  # seconds: the order in which idle connections make room is exact to this
_NONE: Mapping[bytes, Plan] = MappingProxyType({})
_NO_FAILURE = Failure()


def _nowhere(_: bytes) -> None:
    """Where a connection writes that is not open."""


class CallerConnection(asyncio.Protocol):
    """A connection from accept to close. One request is answered at a time, in order.

    `_plans` is empty unless the connection rests: its caller is known, nothing is buffered, nothing owed,
    and the next answer need not be the last.
    """

    def __init__(self, shared: Shared, arrival: Arrival | None = None) -> None:
        self._shared, self._clock, self._arrival = shared, shared.clock, arrival
        self._plans, self._failure = _NONE, _NO_FAILURE
        self._write: Callable[[bytes], None] = _nowhere
        self._touch_at = 0.0
        self._ends: tuple[object, object] = (None, None)
        self._reader = RequestReader(shared.rules, {})
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._current: Request | None = None
        self._blocked = False
        self._draining = self._ended = self._paused = self._lingering = self._yielded = False
        self._since = self._arrived = 0.0
        self._epoch = 0
        self._back: Back | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is being answered (half a head is no request)."""
        return self._current is None and not self._blocked and not self._yielded

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted: looked up before a byte is read, since a caller that exits loses its name."""
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        self._since = self._arrived = self._shared.clock()
        if not self._shared.register.admit(self):
            # Not in the register, so nothing would end its lingering.
            answer = refusal_answer(TOO_MANY_CONNECTIONS)
            self._transport.write(answer.encode(head_only=False, keep_alive=False))
            self._transport.close()
            if self._arrival is not None:
                self._arrival.forget()
            return
        arrival, self._arrival = self._arrival, None
        if arrival is None:
            self._ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            self._ask_who(self._transport)
            return
        self._epoch, self._ends, self._back = arrival.epoch, arrival.ends, arrival.back
        if arrival.owed:
            self._transport.write(arrival.owed)
        self._name(arrival.caller, self._transport.get_extra_info("socket"))
        if arrival.data:
            self.data_received(arrival.data)

    def _ask_who(self, transport: asyncio.Transport) -> None:
        self._peer, self._epoch = None, self._shared.attribution.epoch
        accepted = transport.get_extra_info("socket")
        self._name(self._shared.attribution.begin(accepted, self._ends[0]), accepted)

    def _name(self, caller: Caller | Coroutine[Any, Any, Caller], accepted: socket.socket) -> None:
        if isinstance(caller, Caller):
            self._know(caller, accepted)
        else:
            self._task = asyncio.get_running_loop().create_task(caller)
            self._task.add_done_callback(lambda task: self._resolved(task, accepted))

    def data_received(self, data: bytes) -> None:
        """Bytes of the caller: most often one request that is known by heart."""
        plan = self._plans.get(data)
        if plan is not None:
            now = self._clock()
            answer = plan.answer(now, self._failure)
            if answer is not None:
                self._since = now
                self._write(answer)
                if plan.closes or now >= self._touch_at:
                    self._answered_by_heart(plan.closes, now, data)
                return
        if self._plans is _NONE or not self._asked_by_heart(data):
            self._received(data)

    def _asked_by_heart(self, data: bytes) -> bool:
        """Whether the service is asked, or the caller refused, as the last time for this head."""
        peer = self._peer
        if peer is None or (errand := peer.remembered.errands.get(data)) is None:
            return False
        self._arrived = self._clock()
        if (result := self._shared.service.again(errand, peer, self._arrived)) is None:
            return False
        self._plans, self._since, self._reader.known = _NONE, self._arrived, data
        if isinstance(result, Answer):
            self._answered(errand.request, result)
        else:
            self._current, result.told = errand.request, partial(self._answered, errand.request)
        return True

    def _answered_by_heart(self, closes: bool, now: float, head: bytes) -> None:
        if closes:
            self._draining = True
            self._rest()
        else:
            self._touch_at = now + _TOUCH
            self._shared.register.touch(self)
            if self._back is not None and self._peer is not None:
                self._back(self, self._peer.caller, head, True)

    def _received(self, data: bytes) -> None:
        if self._lingering:
            return
        self._arrived = self._clock()
        out: list[bytes] = []
        if self._plans:
            data = by_heart(self._plans, data, self._arrived, self._failure, out)
        self._plans = _NONE
        if not self._reader.partial:
            self._since = self._arrived
        self._reader.feed(data)
        if self._current is None and self._peer is not None:
            if self._epoch != self._shared.attribution.epoch and self._transport is not None:
                self._write(b"".join(out))
                self._ask_who(self._transport)
            else:
                self._advance(out)
        if self._reader.buffered > _MAX_BUFFERED and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The caller sends no more; it may still read (`nc` half-closes), so what is owed is paid."""
        self._ended, self._plans = True, _NONE
        if self._current is not None and self._peer is not None:
            self._shared.service.abandoned(self._peer, self._current)
        return self._peer is None or not self.idle

    def pause_writing(self) -> None:
        """The caller does not read: nothing more is answered until it does."""
        self._blocked, self._plans = True, _NONE
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
        self._transport, self._plans, self._write = None, _NONE, _nowhere

    def evict(self) -> None:
        """Closes an idle connection to make room."""
        self._plans = _NONE
        self._shared.register.gone(self)
        if self._transport is not None:
            self._transport.abort() if self._blocked else self._transport.close()

    @property
    def ends(self) -> tuple[object, object]:
        """The caller's end and ours as the event loop has them; None for each where it is closed."""
        get = self._transport.get_extra_info if self._transport else dict[str, object]().get
        return get("peername"), get("sockname")

    def leave(self) -> int | None:
        """The connection's descriptor for another process, and its end here; None, and no end, unless it
        rests and all has been sent."""
        transport = self._transport
        if transport is None or self._plans is _NONE or transport.get_write_buffer_size():
            return None
        self._plans = _NONE
        self._shared.register.gone(self)
        return detached(transport)

    def drain(self) -> None:
        """The next answer is the last."""
        self._draining, self._plans = True, _NONE

    def name_again(self) -> None:
        """In another epoch of naming nothing is known by heart."""
        self._plans = _NONE

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
        shared, ends = self._shared, self.ends
        hosts = shared.hosts(ends[1])
        self._reader.memo = remembered = shared.memory.of(caller, hosts, self._epoch)
        self._failure = shared.memory.failure_of(caller)
        holders = partial(shared.attribution.holders, accepted, ends[0])
        tally = shared.service.events.tally_of(caller)
        self._peer = Peer(caller, hosts, remembered, self._failure, holders, tally)
        self._advance()

    def _advance(self, before: list[bytes] | None = None) -> None:
        """Answers what has come, in one write with `before`, up to what needs waiting."""
        peer, transport = self._peer, self._transport
        if peer is None or transport is None or self._lingering or self._yielded:
            return
        out: list[bytes] = before or []
        left = _AT_A_TURN
        while not self._blocked:
            if left <= 0 and self._reader.partial:
                self._yielded = True
                asyncio.get_running_loop().call_soon(self._go_on)
                break
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
            left -= 1 if self._reader.known is not None else _H11_COSTS
            known = self._reader.known if self._epoch == self._shared.attribution.epoch else None
            result = self._shared.service.begin(request, peer, self._arrived, known)
            if not isinstance(result, Answer):
                self._current, result.told = request, partial(self._answered, request)
                break
            out.append(self._encode(request, result))
            if self._closes_after(request):
                self._draining = True
                break
        if out:
            transport.write(b"".join(out))
        if self._current is None and not self._yielded:
            self._rest()

    def _go_on(self) -> None:
        self._yielded = False
        if self._current is None:
            self._advance()

    def _answered(self, request: Request, answer: Answer) -> None:
        self._current = None
        if self._transport is None:
            return
        self._transport.write(self._encode(request, answer))
        if self._closes_after(request):
            self._draining = True
        if self._draining or not self._reader.partial:
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
        if self._since >= self._touch_at:
            self._shared.register.touch(self)
            self._touch_at = self._since + _TOUCH
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        busy = self._blocked or self._reader.partial or self._reader.ended
        if self._peer is not None and not busy and self._epoch == self._shared.attribution.epoch:
            self._plans = self._peer.remembered.plans
            if self._back is not None and self._reader.known is not None:
                self._back(self, self._peer.caller, self._reader.known, False)

    def _encode(self, request: Request, answer: Answer) -> bytes:
        return answer.encode(head_only=request.method == "HEAD", keep_alive=not self._closes_after(request))

    def _closes_after(self, request: Request) -> bool:
        return self._draining or not request.keep_alive

    def _say_and_close(self, answer: Answer, before: list[bytes] | None = None) -> None:
        """The last answer. Closes when the caller has closed, or soon: a close at once would be a reset,
        and take the answer from a caller that is still sending."""
        if self._transport is None or self._lingering:
            return
        self._lingering = self._draining = True
        self._since, self._plans = self._shared.clock(), _NONE
        self._transport.write(b"".join((*(before or ()), answer.encode(head_only=False, keep_alive=False))))
        self._transport.write_eof()
