"""May we switch yet: from a history to READY, NOT READY or UNKNOWN, with the reasons. Pure.

Two questions: may `HttpTokens` become `required` while the proxy is in place (its policy is then what
stands between a forged GET and the credentials), and may the proxy be removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum

from imds_proxy.ledger.coverage import Clock, Gap, Span, gaps

DAY = 86400.0
_GAPS = {
    "not-running": "the proxy was not running",
    "redirect-down": "the redirect to the proxy was not in force",
    "not-in-the-way": "only programs that were pointed at the proxy were seen",
    "counts-lost": "counts are missing",
}
CLOUD_INIT = (23, 2, 2)  # the first that speaks hardened mode, and what the provider's guide asks for


class Verdict(Enum):
    """The answer to one question; its value is what is printed."""

    READY = "READY"
    NOT_READY = "NOT READY"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class CallerHistory:
    """One caller: when it was last seen (Unix seconds) in each kind of session, `bypass` among them, what
    it is called by people, its client program and the advice for it. `cause`: of its last fallback."""

    name: str
    last_seen: Mapping[str, float]
    client: str | None = None
    version: str | None = None
    advice: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is installed. `version` None: not known; `where` None: it is not there; `advice` is
    what must be done before normal mode is refused, None for nothing."""

    name: str
    version: str | None
    where: str | None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What one ledger says. `now`: this boot and its two clocks, on the ledger's own machine."""

    spans: Sequence[Span] = ()
    losses: Sequence[Gap] = ()
    callers: Sequence[CallerHistory] = ()
    programs: Sequence[Program] = ()
    now: tuple[str, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not READY. `blocks`: NOT READY, else UNKNOWN; `subject` is a caller, a program, a key."""

    kind: str
    subject: str
    text: str
    blocks: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one question, and every reason against it."""

    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What is certain outweighs what is not known."""
        if any(reason.blocks for reason in self.reasons):
            return Verdict.NOT_READY
        return Verdict.UNKNOWN if self.reasons else Verdict.READY


@dataclass(frozen=True, slots=True)
class Readiness:
    """Both answers, and the window (Unix seconds) with what was not watched of it."""

    begin: float
    end: float
    gaps: tuple[Gap, ...] = field(default=())
    required: Answer = Answer()
    removed: Answer = Answer()


def assess(history: History, now: float, days: float) -> Readiness:
    """Judges the `days` before `now` (Unix seconds)."""
    begin = now - days * DAY
    clock = Clock(history.spans, history.now)
    spans = [clock.span(span) for span in history.spans]
    found = gaps(spans, history.losses, begin, now)
    in_window = [
        (caller, frozenset(kind for kind, when in caller.last_seen.items() if clock.time(when) >= begin))
        for caller in history.callers
    ]
    unwatched = [_of_gap(gap) for gap in found]
    bypassing = [_of_bypass(caller) for caller, kinds in in_window if "bypass" in kinds]
    latest = max(spans, key=lambda span: span.end, default=None)
    required = (
        *_of_policy(latest),
        *_of_programs(history.programs, (caller for caller, kinds in in_window if kinds)),
        *bypassing,
        *unwatched,
    )
    removed = (*_of_callers(in_window), *bypassing, *unwatched)
    return Readiness(begin, now, tuple(found), Answer(tuple(required)), Answer(tuple(removed)))


def version_of(text: str) -> tuple[int, ...] | None:
    """The numbers at the front of a version, `23.4-1` as (23, 4); None where there are none."""
    match = re.match(r"\D{0,2}(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def _of_callers(in_window: Iterable[tuple[CallerHistory, frozenset[str]]]) -> Iterator[Reason]:
    for caller, kinds in in_window:
        if "legacy" in kinds:
            text = caller.advice or "speaks normal mode: fetch a token first, or upgrade its SDK"
            yield Reason("legacy", caller.name, text, True)
        elif "fallback" in kinds:
            cause = f" ({caller.cause})" if caller.cause else ""
            text = f"needs no code change; its call with a token failed{cause}, and its plain GET would too"
            yield Reason("fallback", caller.name, text, True)


def _of_policy(latest: Span | None) -> Iterator[Reason]:
    if latest is None:
        return
    if latest.mode == "passthrough":
        yield Reason("mode", "mode", "is passthrough: normal-mode calls are not upgraded", True)
    if latest.enforcement != "enforce":
        text = f"is {latest.enforcement}: what should be refused is served, so a forged GET still is"
        yield Reason("enforcement", "policy.enforcement", text, True)


def _of_programs(programs: Iterable[Program], callers: Iterable[CallerHistory]) -> Iterator[Reason]:
    """Programs that call before the proxy is there (at boot), or past it."""
    known = list(programs)
    if not any(program.name == "cloud-init" for program in known):
        seen = [
            Program(caller.client, caller.version, caller.name)
            for caller in callers
            if caller.client == "cloud-init"
        ]
        known += seen or [Program("cloud-init", None, "not looked for")]
    for program in known:
        if program.where is None:
            continue
        version = version_of(program.version) if program.version else None
        if program.advice is not None:
            yield Reason("program", program.name, program.advice, True)
        elif program.name == "cloud-init" and version is None:
            text = "its version is not known; 23.2.2 or newer is needed, since it calls before the proxy runs"
            yield Reason("program", program.name, text, False)
        elif program.name == "cloud-init" and version is not None and version < CLOUD_INIT:
            text = f"is {program.version}; 23.2.2 or newer is needed, since it calls before the proxy runs"
            yield Reason("program", program.name, text, True)


def _of_gap(gap: Gap) -> Reason:
    begin, end = (datetime.fromtimestamp(when, timezone.utc) for when in (gap.begin, gap.end))
    times = f"from {begin:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC"
    detail = f": {gap.detail}" if gap.detail else ""
    return Reason("gap", gap.reason, f"{_GAPS.get(gap.reason, gap.reason)} {times}{detail}", False)


def _of_bypass(caller: CallerHistory) -> Reason:
    text = "held a connection to the service that did not pass the proxy: what it sends is not known"
    return Reason("bypass", caller.name, text, False)
