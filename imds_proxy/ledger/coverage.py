"""When the proxy watched and when it did not, on the true clock. Pure.

Spans carry two clocks: the wall's, which may have been wrong and set, and the boot's, which only goes on.
Within a boot the latest relation of the two is taken for true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

RESTART = 10.0  # seconds: a shorter pause is a restart, whose calls waited or were repeated
RESTARTS = 300.0  # seconds of all restarts in a window that are let pass

WATCHING = frozenset({"redirect", "address", "observe"})


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the proxy watched in one way: a row of `spans`. Unix seconds and CLOCK_BOOTTIME."""

    boot: str
    begin: float
    end: float
    begin_boot: float
    end_boot: float
    mode: str
    enforcement: str
    interception: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A time of which it is not known who called. `reason`: not-running, redirect-down, not-in-the-way,
    counts-lost, bypassed; `detail` says more, for people."""

    begin: float
    end: float
    reason: str
    detail: str = ""


class Clock:
    """Corrects times that were read from a wall clock while it was wrong; `was_wrong`: if it ever was."""

    def __init__(self, spans: Sequence[Span], now: tuple[str, float, float] | None = None) -> None:
        """`now` is this boot and its two clocks, where it is the ledger's own machine."""
        offsets: dict[str, float] = {}
        for span in sorted(spans, key=lambda one: one.end_boot):
            offsets[span.boot] = span.end - span.end_boot
        if now is not None:
            offsets[now[0]] = now[1] - now[2]
        self._offsets: Mapping[str, float] = offsets
        self.was_wrong = any(abs(self._error(one)) > 1.0 for one in spans)
        self._spans = tuple(spans) if self.was_wrong else ()

    def _error(self, span: Span) -> float:
        return span.begin_boot + self._offsets[span.boot] - span.begin

    def span(self, span: Span) -> Span:
        """The span with true times."""
        offset = self._offsets[span.boot]
        return replace(span, begin=span.begin_boot + offset, end=span.end_boot + offset)

    def time(self, wall: float) -> float:
        """The true time of what was noted at `wall`: the latest that it can have been."""
        found = [wall + self._error(span) for span in self._spans if span.begin - 1 <= wall <= span.end + 1]
        return max(found, default=wall)


def gaps(spans: Iterable[Span], losses: Iterable[Gap], begin: float, end: float) -> list[Gap]:
    """Of the time from `begin` to `end` what was not watched, by corrected spans; in their order."""
    found: list[Gap] = []
    at = begin
    for span in sorted(spans, key=lambda one: one.begin):
        if span.end <= begin or span.begin >= end:
            continue
        if span.begin > at:
            found.append(Gap(at, span.begin, "not-running"))
        if span.interception not in WATCHING and span.end > at:
            down = span.interception == "down"
            reason = "redirect-down" if down else "not-in-the-way"
            found.append(Gap(max(at, span.begin), min(end, span.end), reason))
        at = max(at, span.end)
    if at < end:
        found.append(Gap(at, end, "not-running"))
    found = _without_restarts(_joined(found))
    found += [
        replace(one, begin=max(begin, one.begin), end=min(end, one.end))
        for one in losses
        if one.end >= begin and one.begin <= end
    ]
    return sorted(found, key=lambda gap: gap.begin)


def _joined(found: Iterable[Gap]) -> list[Gap]:
    out: list[Gap] = []
    for gap in found:
        if out and out[-1].reason == gap.reason and gap.begin - out[-1].end < 1.0:
            out[-1] = replace(out[-1], end=gap.end)
        else:
            out.append(gap)
    return out


def _without_restarts(found: Sequence[Gap]) -> list[Gap]:
    short = [gap for gap in found if gap.end - gap.begin <= RESTART]
    if sum(gap.end - gap.begin for gap in short) > RESTARTS:
        return list(found)
    return [gap for gap in found if gap not in short]
