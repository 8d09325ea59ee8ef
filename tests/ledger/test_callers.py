"""The memory of callers: news once, counts between summaries, bounded."""

from __future__ import annotations

from imds_proxy.ledger.callers import CallerLedger, key_of
from imds_proxy.policy.caller import Caller, Identity, Process, Program
from imds_proxy.protocol.session import Session


def caller(number: int = 0, *, pid: int = 7, exe: str = "/usr/bin/curl", script: str | None = None) -> Caller:
    return Caller(Identity(number), process=Process(pid, exe), program=Program(script=script))


def test_a_caller_is_news_once_for_each_kind_of_session() -> None:
    ledger = CallerLedger()
    assert ledger.note(caller(), Session.LEGACY, "/a", False)[0]
    assert not ledger.note(caller(), Session.LEGACY, "/b", False)[0]
    assert ledger.note(caller(), Session.FALLBACK, "/a", False)[0]
    assert ledger.note(caller(1), Session.LEGACY, "/a", False)[0]


def test_the_next_process_of_a_program_is_no_news_another_program_is() -> None:
    ledger = CallerLedger()
    assert ledger.note(caller(), Session.LEGACY, "/a", False)[0]
    assert not ledger.note(caller(pid=8), Session.LEGACY, "/a", False)[0]
    assert ledger.note(caller(exe="/usr/bin/wget"), Session.LEGACY, "/a", False)[0]
    assert ledger.note(caller(script="/x.py"), Session.LEGACY, "/a", False)[0]
    assert key_of(Caller(Identity(0))) == (Identity(0), None, None)


def test_a_summary_counts_since_the_last_one() -> None:
    ledger = CallerLedger()
    for path in ("/a", "/b", "/b"):
        ledger.note(caller(), Session.LEGACY, path, False)
    ledger.note(caller(), Session.HARDENED, "/c", True)
    (record,) = ledger.take_summaries()
    assert record.sessions == {Session.LEGACY: 3, Session.HARDENED: 1}
    assert (record.items, record.refused) == ({"/a", "/b", "/c"}, 1)
    assert ledger.take_summaries() == []
    assert not ledger.note(caller(), Session.LEGACY, "/a", False)[0]
    (record,) = ledger.take_summaries()
    assert (record.sessions, record.refused) == ({Session.LEGACY: 1}, 0)


def test_neither_callers_nor_their_paths_grow_without_bound() -> None:
    ledger = CallerLedger(size=10)
    for number in range(1000):
        ledger.note(caller(number % 50), Session.LEGACY, f"/{number}", False)
    for number in range(1000):
        ledger.note(caller(0), Session.LEGACY, f"/{number}", False)
    records = ledger.take_summaries()
    assert len(records) <= 10
    assert all(len(record.items) <= 64 for record in records)


def test_a_full_record_is_handed_out_before_a_path_would_be_dropped() -> None:
    ledger = CallerLedger()
    for number in range(63):
        assert ledger.note(caller(), Session.LEGACY, f"/{number}", False)[1] is None
    new, full = ledger.note(caller(), Session.LEGACY, "/63", False)
    assert not new
    assert full is not None
    assert len(full.items) == full.sessions[Session.LEGACY] == 64
    assert ledger.note(caller(), Session.LEGACY, "/64", False) == (False, None)
    assert ledger.take_summaries()[0].items == {"/64"}


def test_a_path_that_is_no_item_is_counted_and_not_kept() -> None:
    ledger = CallerLedger()
    ledger.note(caller(), Session.TOKEN, None, False)
    assert ledger.take_summaries()[0].items == set()
