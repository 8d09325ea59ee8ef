"""The counts in memory: bumped by requests, taken once a second, summed up for the log."""

from __future__ import annotations

from imds_proxy.ledger.entries import Alike, StableCaller
from imds_proxy.ledger.tally import CallerTally, Cell, Tally, key_of, summary_of
from imds_proxy.policy.caller import Caller, Identity, Process, Program
from imds_proxy.protocol.session import Session


def caller(number: int = 0, *, pid: int = 7, exe: str = "/usr/bin/curl", script: str | None = None) -> Caller:
    return Caller(Identity(number), process=Process(pid, exe), program=Program(script=script))


def cell(of: CallerTally, path: str = "/a", session: Session = Session.LEGACY, **more: str) -> Cell:
    """A cell of that caller, as the reporter makes one."""
    key = (path, session, "", None if not more else (more["decision"], "", ""))
    return of.cells.setdefault(key, Cell(Alike(of.stable, session.value, path, "static", **more), session))


def test_the_next_process_of_a_program_is_the_same_caller_another_program_is_not() -> None:
    tally = Tally()
    assert tally.of(caller()) is tally.of(caller(pid=8))
    assert tally.of(caller()) is not tally.of(caller(exe="/usr/bin/wget"))
    assert tally.of(caller()) is not tally.of(caller(script="/x.py"))
    assert tally.of(caller()) is not tally.of(caller(1))
    assert key_of(Caller(Identity(0))) == (Identity(0), None, None)


def test_what_was_counted_is_taken_once() -> None:
    tally = Tally()
    one, other = cell(tally.of(caller())), cell(tally.of(caller(1)))
    for _ in range(3):
        tally.bump(one)
    tally.bump(other)
    assert tally.counts[Session.LEGACY] == 4
    assert tally.take() == [(one.alike, 3), (other.alike, 1)]
    assert tally.take() == []
    tally.bump(one)
    assert tally.take() == [(one.alike, 1)]
    assert tally.counts == {**dict.fromkeys(Session, 0), Session.LEGACY: 5}


def test_a_summary_counts_since_the_last_one() -> None:
    tally = Tally()
    of = tally.of(caller())
    for bumped in (cell(of), cell(of), cell(of, "/b"), cell(of, "/c", Session.HARDENED, decision="refused")):
        tally.bump(bumped)
    tally.take()
    (summary,) = tally.summaries()
    assert summary.sessions == {Session.LEGACY: 3, Session.HARDENED: 1}
    assert (set(summary.items), summary.refused) == ({"/a", "/b", "/c"}, 1)
    assert list(tally.summaries()) == []
    tally.bump(cell(of))
    tally.take()
    (summary,) = tally.summaries()
    assert (summary.sessions, summary.refused) == ({Session.LEGACY: 1}, 0)


def test_a_full_caller_is_summed_up_and_no_count_is_lost() -> None:
    tally = Tally()
    of = tally.of(caller())
    for number in range(512):
        assert not of.full
        tally.bump(cell(of, f"/{number}"))
    assert of.full
    full = summary_of(of, forget=True)
    assert full is not None
    assert len(full.items) == full.sessions[Session.LEGACY] == 512
    assert not of.full
    tally.bump(cell(of, "/0"))
    assert sum(count for _, count in tally.take()) == 513


def test_a_caller_that_was_forgotten_loses_no_count() -> None:
    tally = Tally(callers=10)
    for number in range(1000):
        tally.bump(cell(tally.of(caller(number))))
    assert sum(count for _, count in tally.take()) == 1000
    assert len(list(tally.summaries())) <= 10


def test_many_may_be_counted_at_once() -> None:
    tally = Tally()
    cell = Cell(Alike(StableCaller(uid=1), "legacy", "/mac", "static", "allowed", "", "", ""), Session.LEGACY)
    tally.bump(cell, 40)
    tally.bump(cell)
    assert [count for _, count in tally.take()] == [41]
    assert tally.counts[Session.LEGACY] == 41
