"""How requests ended: recorded, and the answer to those that were refused or failed. Decides nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from imds_proxy.errors import INTERNAL, Refusal, Refused
from imds_proxy.ledger.tally import Cell
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.responses import Answer, refusal_answer
from imds_proxy.protocol.session import Session
from imds_proxy.server.events import Outcome, RequestEvents
from imds_proxy.server.peer import Peer


class Endings:
    """Tells `events`, and the client's `Failure`. `clock` gives seconds of CLOCK_BOOTTIME."""

    def __init__(self, events: RequestEvents, clock: Callable[[], float]) -> None:
        self._events, self._clock = events, clock

    def ended(
        self,
        request: Request,
        peer: Peer,
        session: Session,
        would_refuse: Refusal | None,
        result: Answer | Exception,
        stale: bool = False,
    ) -> Answer:
        """Records what came of a request that had to wait; the answer to it."""
        if isinstance(result, Refused):
            return self.refuse(request, peer, session, result)
        if isinstance(result, Exception):  # a defect of ours: one request fails, the daemon goes on
            return self.refuse(request, peer, session, Refused(INTERNAL, _where(result)))
        self.record(request, peer, session, result.status, None, would_refuse, stale)
        return result

    def refuse(self, request: Request, peer: Peer, session: Session, error: Refused) -> Answer:
        """Records a refusal; its page."""
        self.record(request, peer, session, error.refusal.status, error, None)
        return refusal_answer(error.refusal, error.retry_after)

    def record(
        self,
        request: Request,
        peer: Peer,
        session: Session,
        status: int,
        error: Refused | None,
        would_refuse: Refusal | None,
        stale: bool = False,
    ) -> None:
        """Counts a request that was answered with this status; `error` is why it was refused."""
        if status != 200 and session in (Session.TOKEN, Session.HARDENED):
            why = error.refusal.slug if error else f"status-{status}"
            peer.failure.note(self._clock(), f"{session.value}:{why}")
        if error is None and would_refuse is None and not stale:
            cell = cell_of(request, peer, session)
            if cell is not None:
                self._events.bump(cell)
                return
        self._events.record(
            Outcome(
                caller=peer.caller,
                session=session,
                path=request.target.shown,
                item=request.item.value,
                refusal=error.refusal if error else None,
                would_refuse=would_refuse,
                detail=error.detail if error else "",
                stale=stale,
                agent=request.agent,
                cause=peer.failure.why if session is Session.FALLBACK else "",
            ),
            peer.tally or self._events.tally_of(peer.caller),
        )


def cell_of(request: Request, peer: Peer, session: Session) -> Cell | None:
    """Where requests like this one are counted that were allowed, with nothing to say, if one was."""
    path = None if request.is_put else request.target.shown
    return peer.tally.cells.get((path, session, request.agent, None)) if peer.tally is not None else None


def _where(error: Exception) -> str:
    # Not the error's own text, which may quote a secret.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
