"""What is counted and said of requests: each new legacy caller at once, then summaries; refusals, bounded.

Turns outcomes into counts and log lines; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from imds_proxy.callers.redact import safe_command_line
from imds_proxy.errors import FORM_REFUSALS, REFUSALS, TOKEN_PATH, Refusal
from imds_proxy.ledger.entries import Alike, Described, StableCaller
from imds_proxy.ledger.tally import CallerSummary, CallerTally, Cell, Deviation, Kind, Tally, summary_of
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.protocol.session import Session
from imds_proxy.server.clientdesk import ClientDesk
from imds_proxy.server.log import Log

_TO_CHANGE = (Session.LEGACY, Session.FALLBACK)
_OWN_FAILURE = 500  # statuses from here on
_MAX_AGENT = 160  # characters of User-Agent that are kept
_MAX_ITEMS = 64  # paths in one line
_TOKEN_PATH = "/latest/api/token"  # noqa: S105  (a path)
_SENTENCES: Mapping[Session, str] = {
    Session.LEGACY: "a caller speaks normal mode and needs a change",
    Session.FALLBACK: "a caller that speaks hardened mode fell back to normal mode; it needs no code change",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. `path` is canonical, without its query; `item` its class; `stale`: by an answer
    beyond its time; `agent` is User-Agent as it came; `cause`: of a fallback, why its call with a token had
    failed."""

    caller: Caller
    session: Session
    path: str
    item: str
    refusal: Refusal | None = None
    would_refuse: Refusal | None = None
    detail: str = ""
    stale: bool = False
    agent: str = ""
    cause: str = ""


class RequestEvents:
    """The daemon's reporter. `clock` gives seconds, monotonic."""

    def __init__(
        self, log: Log, tally: Tally, clock: Callable[[], float], clients: ClientDesk | None = None
    ) -> None:
        self._log, self._tally, self._clock = log, tally, clock
        self._news = TokenBucket(50, 200, clock())
        self._refusals = TokenBucket(50, 200, clock())
        self._of_caller: LRUCache[Identity, TokenBucket] = LRUCache(1024)
        self._stale = TokenBucket(1 / 60, 1, clock())
        self._suppressed = 0
        self.stale = 0
        self.refusals = dict.fromkeys((one.slug for one in REFUSALS), 0)
        self.would_refuse = dict.fromkeys((one.slug for one in REFUSALS if one.status < _OWN_FAILURE), 0)
        self.tally_of, self.bump = tally.of, tally.bump
        self._clients = clients
        self._expected: LRUCache[bytes, None] = LRUCache(1024)
        self._held: list[Described] = []

    @property
    def counts(self) -> dict[Session, int]:
        """Requests so far by kind of session."""
        return self._tally.counts

    @property
    def refused(self) -> int:
        """Requests refused or failed so far."""
        return sum(self.refusals.values())

    @property
    def legacy_callers(self) -> int:
        """Programs that spoke normal mode since the start, as far as they are remembered."""
        return self._tally.legacy_callers

    def totals(self) -> dict[Kind, int]:
        """Requests so far by session, class of item and decision."""
        return self._tally.totals()

    def record(self, outcome: Outcome, caller: CallerTally) -> None:
        """Counts and, where it is news, logs one outcome. What is no news may `bump` the same cell."""
        if outcome.stale:
            self._served_stale(outcome)
        if caller.full:
            self._sum_up(caller)
        cell, new = _cell(outcome, caller)
        self._tally.bump(cell)
        if new and self._clients is not None and outcome.refusal not in FORM_REFUSALS:
            stable, agent = caller.stable, cell.alike.agent
            self._expected.pop(stable.key, None)
            self._clients.saw(outcome.caller, stable, outcome.session, agent, outcome.path, outcome.cause)
        if outcome.session not in caller.seen:
            caller.seen.add(outcome.session)
            if outcome.session in _TO_CHANGE:
                self._announce(outcome)
        if outcome.refusal is not None:
            self.refusals[outcome.refusal.slug] += 1
            self.refuse("refused", outcome.refusal, outcome)
        elif outcome.would_refuse is not None:
            self.would_refuse[outcome.would_refuse.slug] += 1
            self.refuse("would-refuse", outcome.would_refuse, outcome)

    def _announce(self, outcome: Outcome) -> None:
        if not self._news.take(self._clock()):
            self._suppressed += 1
            return
        self._log.event(
            f"{outcome.session.value}-caller",
            _SENTENCES[outcome.session],
            **facts_of(outcome.caller),
            session=outcome.session.value,
            path=outcome.path,
            item=outcome.item,
            cause=outcome.cause or None,
        )

    def _sum_up(self, caller: CallerTally) -> None:
        # An allowlist is made from what the log says: a full record is said, and another begun.
        full = summary_of(caller, forget=True)
        if full is not None and self._news.take(self._clock()):
            self._summarise(full)
        else:
            self._suppressed += 1

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

    def expect(self, caller: Caller, session: Session, path: str, agent: str, cause: str) -> None:
        """A request was seen and its answer was not yet: its process waits, and can still be looked at."""
        if self._clients is None:
            return
        tally = self.tally_of(caller)
        if not tally.cells:  # what is found out of it waits until the ledger knows it
            self._expected[tally.stable.key] = None
        self._clients.saw(caller, tally.stable, session, agent, path, cause)

    def refused_unread(self, refusal: Refusal, caller: Caller, detail: str) -> None:
        """Counts and logs the refusal of what could not be read as a request."""
        self.refusals[refusal.slug] += 1
        self.refuse("refused", refusal, Outcome(caller, Session.LEGACY, "", "", refusal, None, detail))
        if refusal is TOKEN_PATH and self._clients is not None:  # one SDK GETs its token, and fails
            self._clients.saw(caller, StableCaller.of(caller), Session.LEGACY, "", _TOKEN_PATH, "")

    def take(self) -> list[tuple[Alike, int]]:
        """What was counted since the last call, for the ledger."""
        return self._tally.take()

    def described(self) -> list[Described]:
        """What was found out of callers since the last call, for the ledger."""
        found = [*self._held, *self._clients.take()] if self._clients is not None else []
        self._held = [one for one in found if one.key in self._expected]
        return [one for one in found if one.key not in self._expected]

    def close(self) -> None:
        """Ends what looks at callers' clients."""
        if self._clients is not None:
            self._clients.close()

    def summarise(self) -> None:
        """One line for each caller with requests since the last summary; call `take` before."""
        for summary in self._tally.summaries():
            self._summarise(summary)

    def _summarise(self, summary: CallerSummary) -> None:
        items = sorted(summary.items)
        for start in range(0, max(1, len(items)), _MAX_ITEMS):
            first = start == 0
            self._log.event(
                "caller-summary",
                "requests since the last summary",
                **facts_of(summary.example),
                sessions={kind.value: count for kind, count in summary.sessions.items()} if first else {},
                refused=(summary.refused or None) if first else None,
                items=items[start : start + _MAX_ITEMS],
            )


def _cell(outcome: Outcome, caller: CallerTally) -> tuple[Cell, bool]:
    """The cell of requests like this one, and whether it is the first."""
    # What is wrong in form is no need of the caller's, and the token is no item.
    is_item = outcome.session is not Session.TOKEN and outcome.refusal not in FORM_REFUSALS
    path = outcome.path if is_item else None
    deviation = _deviation(outcome)
    key = (path, outcome.session, outcome.agent, deviation)
    cell = caller.cells.get(key)
    new = cell is None
    if cell is None:
        agent = " ".join(safe_command_line((outcome.agent,), _MAX_AGENT)) if outcome.agent else ""
        alike = Alike(
            caller.stable,
            outcome.session.value,
            path,
            outcome.item,
            *(deviation or ("allowed", "", "")),
            agent,
        )
        cell = caller.cells[key] = Cell(alike, outcome.session)
    return cell, new


def _deviation(outcome: Outcome) -> Deviation:
    if outcome.refusal is not None:
        # What the service or its way failed to do is no refusal.
        decision = "failed" if outcome.refusal.status >= _OWN_FAILURE else "refused"
        return decision, outcome.refusal.slug, outcome.cause
    if outcome.would_refuse is not None:
        return "would-refuse", outcome.would_refuse.slug, outcome.cause
    return ("allowed", "", outcome.cause) if outcome.cause else None


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
