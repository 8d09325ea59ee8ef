"""What the request path counts: plain integers in memory, for each caller and kind of request.

A request bumps a cell, and that is all it pays. Knows nothing of files, logs or clocks; of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cachetools import LRUCache

from imds_proxy.ledger.entries import Alike, StableCaller
from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.protocol.session import Session

_MAX_CELLS = 512  # of one caller, until they are summed up

CallerKey = tuple[Identity, str | None, str | None]
"""What stays the same of a caller from process to process: its identity, executable and script."""

Deviation = tuple[str, str, str] | None
"""Decision, reason and cause, as in `Alike`; None for what was simply allowed."""

Kind = tuple[Session, str, str]
"""Session, class of item, decision."""

CellKey = tuple[str | None, Session, str, Deviation]
"""Path, session, agent as it came, deviation."""


def key_of(caller: Caller) -> CallerKey:
    """The key of a caller."""
    return caller.identity, caller.process.exe if caller.process else None, caller.program.script


class Cell:
    """How many requests that are alike came since the last `take` (`count`) and the last summary before
    that (`unsaid`)."""

    __slots__ = ("alike", "count", "session", "unsaid")

    def __init__(self, alike: Alike, session: Session) -> None:
        self.alike, self.session = alike, session
        self.count = self.unsaid = 0

    @property
    def kind(self) -> Kind:
        """What metrics tell apart."""
        return self.session, self.alike.item, self.alike.decision


class CallerTally:
    """The cells of one caller. `example` is the caller as first seen, `seen` the kinds of session so far."""

    __slots__ = ("cells", "example", "seen", "stable")

    def __init__(self, example: Caller) -> None:
        self.example, self.stable = example, StableCaller.of(example)
        self.cells: dict[CellKey, Cell] = {}
        self.seen: set[Session] = set()

    @property
    def full(self) -> bool:
        """Whether it is to be summed up and forgotten before it takes another cell."""
        return len(self.cells) >= _MAX_CELLS


@dataclass(frozen=True, slots=True)
class CallerSummary:
    """Counts of one caller since its last summary."""

    example: Caller
    sessions: dict[Session, int] = field(default_factory=dict)
    refused: int = 0
    items: frozenset[str] = frozenset()


class Tally:
    """All callers, bounded: the least recently connected is forgotten first, and then only its summary."""

    def __init__(self, callers: int = 4096) -> None:
        self._callers: LRUCache[CallerKey, CallerTally] = LRUCache(callers)
        self._touched: list[Cell] = []
        self._taken: dict[Kind, int] = {}

    def of(self, caller: Caller) -> CallerTally:
        """The cells of a caller; asked for once a connection."""
        key = key_of(caller)
        tally: CallerTally | None = self._callers.get(key)
        if tally is None:
            tally = self._callers[key] = CallerTally(caller)
        return tally

    def bump(self, cell: Cell, count: int = 1) -> None:
        """Counts one request, or so many."""
        if not cell.count:
            self._touched.append(cell)
        cell.count += count

    @property
    def counts(self) -> dict[Session, int]:
        """Requests so far by session."""
        counts = dict.fromkeys(Session, 0)
        for (session, _, _), count in self.totals().items():
            counts[session] += count
        return counts

    def totals(self) -> dict[Kind, int]:
        """Requests so far by session, class of item and decision."""
        totals = dict(self._taken)
        for cell in self._touched:
            totals[cell.kind] = totals.get(cell.kind, 0) + cell.count
        return totals

    @property
    def legacy_callers(self) -> int:
        """How many of the callers that are remembered spoke normal mode."""
        return sum(Session.LEGACY in tally.seen for tally in self._callers.values())

    def take(self) -> list[tuple[Alike, int]]:
        """What was counted since the last call."""
        taken = []
        for cell in self._touched:
            taken.append((cell.alike, cell.count))
            self._taken[cell.kind] = self._taken.get(cell.kind, 0) + cell.count
            cell.unsaid += cell.count
            cell.count = 0
        self._touched.clear()
        return taken

    def summaries(self) -> Iterator[CallerSummary]:
        """The callers with requests since their last summary. Call `take` first."""
        for tally in list(self._callers.values()):
            summary = summary_of(tally)
            if summary is not None:
                yield summary


def summary_of(tally: CallerTally, *, forget: bool = False) -> CallerSummary | None:
    """A caller's counts since its last summary, which begin again; None if there were none.

    With `forget` its cells are dropped (what was bumped and not taken yet still will be).
    """
    sessions: dict[Session, int] = {}
    items, refused = set(), 0
    for cell in tally.cells.values():
        count = cell.unsaid + (cell.count if forget else 0)
        if not count:
            continue
        cell.unsaid = 0
        sessions[cell.session] = sessions.get(cell.session, 0) + count
        refused += count if cell.alike.decision in ("refused", "failed") else 0
        if cell.alike.path is not None:
            items.add(cell.alike.path)
    if forget:
        tally.cells = {}
    return CallerSummary(tally.example, sessions, refused, frozenset(items)) if sessions else None
