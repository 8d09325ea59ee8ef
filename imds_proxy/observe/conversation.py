"""What client and service said on one connection, as requests and the statuses that they got. Pure.

Both sides are read by h11: requests as the proxy reads them, answers by a client that mirrors the real one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import h11

from imds_proxy.errors import Refused
from imds_proxy.protocol.request import HeadMemo, HeadRules, Request, RequestReader, Signal

_MAX_WAITING = 256  # requests without an answer, of one connection
_MAX_HEAD = 16384  # bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer's status; None: there was none, or it could not be read."""

    request: Request
    status: int | None


class Conversation:
    """One connection. `unreadable`: something is not HTTP as the proxy takes it, and no more is read."""

    def __init__(self, rules: HeadRules, memo: HeadMemo) -> None:
        self._requests = RequestReader(rules, memo)
        self._waiting: deque[Request] = deque()
        self._mirror = _mirror()
        self._answers_lost = False
        self.unreadable: Refused | None = None

    @property
    def waiting(self) -> tuple[Request, ...]:
        """The requests without an answer."""
        return tuple(self._waiting)

    def sent(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.unreadable is not None:
            return
        self._requests.feed(data)
        try:
            while (found := self._requests.next()) is not Signal.NEED_DATA:
                if isinstance(found, Request) and len(self._waiting) < _MAX_WAITING:
                    self._waiting.append(found)
                    self._follow()
        except Refused as error:
            self.unreadable = error

    def answered(self, data: bytes) -> list[Exchange]:
        """Bytes of the service; the exchanges that they end."""
        done: list[Exchange] = []
        if self._answers_lost or not data:  # to h11, nothing is the end of the stream, again and again
            return done
        try:
            self._mirror.receive_data(data)
            while isinstance(event := self._mirror.next_event(), h11.Event):
                if isinstance(event, h11.Response):
                    done.append(Exchange(self._waiting.popleft(), event.status_code))
                elif isinstance(event, h11.EndOfMessage):
                    self._follow()
        except h11.ProtocolError:
            self._answers_lost = True
        return done

    def close(self) -> list[Exchange]:
        """The connection is over: what had no answer has none."""
        left = [Exchange(request, None) for request in self._waiting]
        self._waiting.clear()
        return left

    def _follow(self) -> None:
        """Lets the mirror ask what the client asked, once it is its turn."""
        if not self._waiting:
            return
        if self._mirror.our_state is h11.DONE and self._mirror.their_state is h11.DONE:
            self._mirror.start_next_cycle()
        if self._mirror.our_state is h11.IDLE:
            request = self._waiting[0]
            self._mirror.send(h11.Request(method=request.method, target="/", headers=[("Host", "-")]))
            self._mirror.send(h11.EndOfMessage())


def _mirror() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
