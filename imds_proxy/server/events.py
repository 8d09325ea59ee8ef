"""What the log says of requests: each new legacy caller at once, then summaries; refusals, bounded.

Turns outcomes into log lines; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from imds_proxy.errors import FORM_REFUSALS, Refusal
from imds_proxy.ledger.callers import CallerLedger, CallerRecord
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.protocol.session import Session
from imds_proxy.server.log import Log

_TO_CHANGE = (Session.LEGACY, Session.FALLBACK)
_SENTENCES: Mapping[Session, str] = {
    Session.LEGACY: "a caller speaks normal mode and needs a change",
    Session.FALLBACK: "a caller that speaks hardened mode fell back to normal mode; it needs no code change",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. `path` is canonical, without its query; `item` its class; `stale`: by an answer
    beyond its time."""

    caller: Caller
    session: Session
    path: str
    item: str
    refusal: Refusal | None = None
    would_refuse: Refusal | None = None
    detail: str = ""
    stale: bool = False


class RequestEvents:
    """The daemon's reporter. `clock` gives seconds, monotonic."""

    def __init__(self, log: Log, ledger: CallerLedger, clock: Callable[[], float]) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock
        self._news = TokenBucket(50, 200, clock())
        self._refusals = TokenBucket(50, 200, clock())
        self._of_caller: LRUCache[Identity, TokenBucket] = LRUCache(1024)
        self._stale = TokenBucket(1 / 60, 1, clock())
        self._suppressed = 0
        self.stale = 0
        self.counts: dict[Session, int] = dict.fromkeys(Session, 0)
        self.refused = 0

    def record(self, outcome: Outcome) -> None:
        """Counts and, where it is news, logs one outcome."""
        self.counts[outcome.session] += 1
        self.refused += outcome.refusal is not None
        if outcome.stale:
            self._served_stale(outcome)
        # What is wrong in form is no need of the caller's, and the token is no item.
        is_item = outcome.session is not Session.TOKEN and outcome.refusal not in FORM_REFUSALS
        path = outcome.path if is_item else None
        new, full = self._ledger.note(outcome.caller, outcome.session, path, outcome.refusal is not None)
        if new and outcome.session in _TO_CHANGE:
            if self._news.take(self._clock()):
                self._log.event(
                    f"{outcome.session.value}-caller",
                    _SENTENCES[outcome.session],
                    **facts_of(outcome.caller),
                    session=outcome.session.value,
                    path=outcome.path,
                    item=outcome.item,
                )
            else:
                self._suppressed += 1
        # An allowlist is made from what the log says: a full record is said, and another begun.
        if full is not None:
            if self._news.take(self._clock()):
                self._summarise(full)
            else:
                self._suppressed += 1
        if outcome.refusal is not None:
            self.refuse("refused", outcome.refusal, outcome)
        elif outcome.would_refuse is not None:
            self.refuse("would-refuse", outcome.would_refuse, outcome)

    def refuse(self, event: str, refusal: Refusal, outcome: Outcome) -> None:
        """Logs a refusal, at a bounded rate: one caller's flood hides nobody else's refusals."""
        now, identity = self._clock(), outcome.caller.identity
        own = self._of_caller.get(identity)
        if own is None:
            own = self._of_caller[identity] = TokenBucket(10, 50, now)
        if not (own.take(now) and self._refusals.take(now)):
            self._suppressed += 1
            return
        suppressed, self._suppressed = self._suppressed, 0
        self._log.event(
            event,
            refusal.sentence,
            slug=refusal.slug,
            status=refusal.status,
            detail=outcome.detail or None,
            session=outcome.session.value,
            path=outcome.path or None,
            item=outcome.item or None,
            suppressed=suppressed or None,
            **facts_of(outcome.caller),
        )

    def _served_stale(self, outcome: Outcome) -> None:
        self.stale += 1
        if self._stale.take(self._clock()):
            self._log.event(
                "stale",
                "the service cannot be asked; answers beyond their time are served (said once a minute)",
                path=outcome.path,
                item=outcome.item,
                served=self.stale,
            )

    def refused_unread(self, refusal: Refusal, caller: Caller, detail: str) -> None:
        """Logs the refusal of what could not be read as a request."""
        self.refused += 1
        self.refuse("refused", refusal, Outcome(caller, Session.LEGACY, "", "", refusal, None, detail))

    def summarise(self) -> None:
        """One line for each caller with requests since the last summary."""
        for record in self._ledger.take_summaries():
            self._summarise(record)

    def _summarise(self, record: CallerRecord) -> None:
        self._log.event(
            "caller-summary",
            "requests since the last summary",
            **facts_of(record.example),
            sessions={kind.value: count for kind, count in record.sessions.items()},
            refused=record.refused or None,
            items=sorted(record.items),
        )


def facts_of(caller: Caller) -> dict[str, Any]:
    """What a log line says of a caller: facts, and claims (`comm`, `cmdline`) as they were cleaned."""
    process = caller.process
    return {
        "uid": caller.identity.uid,
        "user": caller.user,
        "unit": caller.identity.unit,
        "container": caller.identity.container,
        "origin": caller.identity.origin,
        "pid": process.pid if process else None,
        "exe": process.exe if process else None,
        "script": caller.script,
        "cmdline": " ".join(process.cmdline) if process else None,
        "parents": [_short(parent) for parent in caller.parents] or None,
        "unresolved": caller.why_unresolved,
    }


def _short(process: Process) -> str:
    return f"{process.pid}:{process.exe or process.comm or '?'}"
