"""What a worker knows by heart, and when it does not any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.server.workers.learnt import Kind, Knowledge, Learnt, Lesson

ONE = Caller(Identity(1000, unit="a.service"), process=Process(7, "/usr/bin/a"))
OWN = ("127.0.0.1", 80)
HEAD = b"GET / HTTP/1.1\r\n\r\n"
LESSON = Lesson(1, b"answer", 100.0, False, lease=5, generation=1, slot=3, stamp=9)
LONG_AGO = float("-inf")


class Room:
    """A worker's knowledge with one lesson in it, and the page that it looks at."""

    def __init__(self, lesson: Lesson = LESSON, lent: int = 10) -> None:
        self.stamps = [1, 0, 0, 9]
        self.known = Knowledge(self.stamps)
        self.kind: Kind = self.known.kind_of(ONE, OWN)
        self.known.learn(self.kind, HEAD, lesson)
        self.known.grant(lesson.lease, lent)

    @property
    def learnt(self) -> Learnt:
        return self.kind.plans[HEAD]

    def takes(self, now: float = 50.0, failed: float = LONG_AGO) -> bool:
        return self.known.takes(self.learnt, now, failed)


def test_it_answers_as_often_as_was_lent() -> None:
    room = Room(lent=3)
    assert [room.takes() for _ in range(5)] == [True, True, True, False, False]


def test_a_kind_is_what_rules_and_the_ledger_see_of_callers_and_where_they_called() -> None:
    known = Knowledge([1])
    other_process = replace(ONE, process=Process(8, "/usr/bin/a"))
    other_program = replace(ONE, process=Process(7, "/usr/bin/b"))
    other_user = replace(ONE, identity=Identity(1001))
    first = known.kind_of(ONE, OWN)
    assert known.kind_of(other_process, OWN) is first
    kinds = [known.kind_of(one, OWN) for one in (other_program, other_user)]
    kinds.append(known.kind_of(ONE, ("127.0.0.1", 81)))
    assert len({id(one) for one in (first, *kinds)}) == 4


@pytest.mark.parametrize(
    ("now", "failed", "stamps"),
    [
        (100.0, LONG_AGO, [1, 0, 0, 9]),  # its time is over
        (50.0, 45.0, [1, 0, 0, 9]),  # the client's hardened call failed
        (50.0, LONG_AGO, [1, 0, 0, 8]),  # another answer stands there
        (50.0, LONG_AGO, [1, 0, 0, 0]),  # that answer is kept no more
        (50.0, LONG_AGO, [2, 0, 0, 9]),  # another configuration is in force
    ],
)
def test_it_does_not_answer_where_anything_has_changed(now: float, failed: float, stamps: list[int]) -> None:
    room = Room()
    assert room.takes()
    room.stamps[:] = stamps
    assert not room.known.takes(room.learnt, now, failed)


def test_another_generation_ends_all_lessons() -> None:
    room = Room()
    room.stamps[0] = 2
    assert not room.takes()
    assert not room.kind.plans
    account = room.known.account()
    assert account.forgotten == [1]
    assert account.settled == [(5, 0, 10)]  # what was lent comes back


def test_each_answer_is_told_once() -> None:
    room = Room()
    room.takes(), room.takes()
    account = room.known.account()
    assert (account.counted, account.settled) == ([(1, 2)], [(5, 2, 0)])
    assert room.known.account().empty
    room.takes()
    assert room.known.account().counted == [(1, 1)]


def test_a_lease_that_nobody_uses_is_given_back_after_ten_seconds() -> None:
    room = Room()
    accounts = [room.known.account() for _ in range(60)]
    given = [account.settled for account in accounts if account.settled]
    assert given == [[(5, 0, 10)]]
    assert not accounts[49].settled
    assert not room.takes()


def test_at_the_end_all_is_given_back() -> None:
    room = Room()
    room.takes()
    assert room.known.account(last=True).settled == [(5, 1, 9)]


def test_it_is_time_to_ask_for_more_when_half_is_used() -> None:
    room = Room(lent=10)
    room.learnt.lease.asked = True
    assert room.learnt.lease.low == 5
    for _ in range(10):
        assert room.takes()
    room.known.grant(5, 4)
    assert (room.learnt.lease.left, room.learnt.lease.low, room.learnt.lease.asked) == (4, 2, False)


def test_a_lesson_in_place_of_another_ends_that_one() -> None:
    room = Room()
    room.known.learn(room.kind, HEAD, replace(LESSON, number=2, wire=b"new"))
    assert room.learnt.lesson.wire == b"new"
    assert room.known.account().forgotten == [1]


def test_what_is_known_is_bounded() -> None:
    known = Knowledge([1])
    kind = known.kind_of(ONE, OWN)
    for number in range(20_000):
        known.learn(kind, b"%d" % number, replace(LESSON, number=number))
    assert len(kind.plans) <= 8192
    kinds = [known.kind_of(ONE, ("127.0.0.1", number)) for number in range(5000)]
    assert known.kind_of(ONE, ("127.0.0.1", 4999)) is kinds[-1]
    assert known.kind_of(ONE, ("127.0.0.1", 0)) is not kinds[0]  # forgotten meanwhile


def test_a_lesson_that_is_not_taken_is_told_as_forgotten() -> None:
    known = Knowledge([1])
    known.refuse(LESSON)
    assert known.account().forgotten == [1]
