"""Packets in, requests with their callers out: flows, names, sessions. Bounded; changes nothing on the wire.

Ties the pure parts to the look-up of callers; knows nothing of packet sockets or files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from imds_proxy.callers.sockdiag import Endpoint
from imds_proxy.errors import Refused
from imds_proxy.observe.conversation import Conversation, Exchange
from imds_proxy.observe.segments import Segment
from imds_proxy.observe.stream import Stream
from imds_proxy.policy.caller import Caller
from imds_proxy.policy.decision import Policy
from imds_proxy.protocol.request import HeadRules, Request
from imds_proxy.protocol.session import Session, session_kind
from imds_proxy.server.events import Outcome, RequestEvents
from imds_proxy.server.plans import Failure

_MOST_FLOWS = 8192
_IDLE = 30.0  # seconds: an answer that has not come by then does not come

Name = Callable[[Endpoint, Endpoint], Caller | Coroutine[Any, Any, Caller]]
_Key = tuple[tuple[bytes, int], tuple[bytes, int]]


@dataclass(slots=True)
class _Flow:
    """One connection of a client to the service."""

    conversation: Conversation
    to_service: Stream = field(default_factory=Stream)
    from_service: Stream = field(default_factory=Stream)
    caller: Caller | None = None
    asking: asyncio.Task[Caller] | None = None
    told: list[Exchange] = field(default_factory=list)
    last: float = 0.0


class Watcher:
    """Follows connections. `clock` gives seconds of CLOCK_BOOTTIME; `name` says whose a connection is;
    `policy` says what it would refuse."""

    def __init__(
        self, rules: HeadRules, name: Name, policy: Policy, events: RequestEvents, clock: Callable[[], float]
    ) -> None:
        self._rules, self._name, self._policy = rules, name, policy
        self._events, self._clock = events, clock
        self._flows: dict[_Key, _Flow] = {}
        self._heads: LRUCache[bytes, Request] = LRUCache(4096)
        self._failures: LRUCache[Hashable, Failure] = LRUCache(4096)
        self.requests = self.unread = self.dropped = 0

    def take(self, segment: Segment, from_client: bool) -> None:
        """One segment, as it passed."""
        ends = (segment.source, segment.target)
        key = ends if from_client else (ends[1], ends[0])
        flow = self._flows.get(key)
        if flow is not None and segment.syn and from_client and not flow.to_service.is_at(segment.sequence):
            self._end(key, flow)  # the same ports again
            flow = None
        if flow is None:
            if not from_client or segment.reset or (segment.fin and not segment.payload):
                return
            flow = self._begin(key)
        flow.last = self._clock()
        stream = flow.to_service if from_client else flow.from_service
        if segment.syn:
            stream.begin(segment.sequence)
            return
        if from_client and segment.payload and flow.caller is None and flow.asking is None:
            self._ask(key, flow)  # by now it is established, which is when the kernel tells
        data = stream.feed(segment.sequence, segment.payload)
        if data and from_client:
            self._sent(flow, data)
        elif data:
            self._tell(flow, flow.conversation.answered(data))
        if segment.reset or (segment.fin and not from_client):
            self._end(key, flow)

    def tend(self) -> None:
        """Ends connections on which nothing passed for long; to be called every second or so."""
        now = self._clock()
        for key, flow in list(self._flows.items()):
            if now - flow.last > _IDLE:
                self._end(key, flow)

    def close(self) -> None:
        """Ends all: what had no answer yet is told so."""
        for key, flow in list(self._flows.items()):
            self._end(key, flow)

    def _begin(self, key: _Key) -> _Flow:
        if len(self._flows) >= _MOST_FLOWS:
            self.dropped += 1
            oldest = next(iter(self._flows))
            self._end(oldest, self._flows[oldest])
        flow = self._flows[key] = _Flow(Conversation(self._rules, self._heads))
        return flow

    def _ask(self, key: _Key, flow: _Flow) -> None:
        client, service = (Endpoint.from_packed(*end) for end in key)
        found = self._name(client, service)
        if isinstance(found, Caller):
            flow.caller = found
            return
        flow.asking = asyncio.get_running_loop().create_task(found)
        flow.asking.add_done_callback(lambda task: self._named(flow, task))

    def _named(self, flow: _Flow, task: asyncio.Task[Caller]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        flow.caller = task.result()
        self._expect(flow)
        told, flow.told = flow.told, []
        self._tell(flow, told)

    def _sent(self, flow: _Flow, data: bytes) -> None:
        before = flow.conversation.unreadable
        flow.conversation.sent(data)
        error = flow.conversation.unreadable
        self._expect(flow)
        if error is not None and before is None:
            self._unread(flow, error)

    def _expect(self, flow: _Flow) -> None:
        """After its answer a process may end at once."""
        caller = flow.caller
        if caller is None:
            return
        for request in flow.conversation.waiting:
            session, failure = self._session_of(caller, request)
            cause = failure.why if session is Session.FALLBACK else ""
            self._events.expect(caller, session, request.target.path, request.agent, cause)

    def _session_of(self, caller: Caller, request: Request) -> tuple[Session, Failure]:
        failure = self._failures.setdefault(_client_of(caller), Failure())
        kind = session_kind(request.is_put, request.token is not None, failure.at, self._clock())
        return kind, failure

    def _unread(self, flow: _Flow, error: Refused) -> None:
        self.unread += 1
        if flow.caller is not None:
            self._events.refused_unread(error.refusal, flow.caller, "observed, not refused")

    def _tell(self, flow: _Flow, exchanges: list[Exchange]) -> None:
        caller = flow.caller
        if caller is None:
            flow.told += exchanges
            return
        for one in exchanges:
            self._record(caller, one)

    def _record(self, caller: Caller, exchange: Exchange) -> None:
        self.requests += 1
        request = exchange.request
        session, failure = self._session_of(caller, request)
        decision = self._policy.of_item(request.target.segments, session, caller)
        is_read = session is not Session.TOKEN
        self._events.record(
            Outcome(
                caller=caller,
                session=session,
                path=request.target.path,
                item=request.item.value,
                would_refuse=(decision.refusal or decision.would_refuse) if is_read else None,
                agent=request.agent,
                cause=failure.why if session is Session.FALLBACK else "",
            ),
            self._events.tally_of(caller),
        )
        if exchange.status != 200 and session in (Session.TOKEN, Session.HARDENED):
            why = "left" if exchange.status is None else f"status-{exchange.status}"
            failure.note(self._clock(), f"{session.value}:{why}")

    def _end(self, key: _Key, flow: _Flow) -> None:
        self._flows.pop(key, None)
        self._tell(flow, flow.conversation.close())


def _client_of(caller: Caller) -> Hashable:
    process = caller.process
    return (process.pid, caller.start_ticks) if process else caller.identity
