"""What the daemon teaches a worker: nothing that it would not answer by heart itself, and no longer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from imds_proxy.ledger.entries import Alike, StableCaller
from imds_proxy.ledger.tally import Cell, Tally
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.freshness import Lifetime
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.session import Session
from imds_proxy.protocol.target import canonical_target
from imds_proxy.server.plans import Failure, Lasting, Plan
from imds_proxy.server.workers.board import Board
from imds_proxy.server.workers.learnt import Lesson
from imds_proxy.server.workers.lessons import Lessons, Pins
from imds_proxy.upstream.store import AnswerStore, Stored

NOW = 50.0
TARGET = canonical_target(b"/latest/meta-data/mac")


def stored(until: float = 100.0) -> Stored:
    return Stored(TARGET, ItemClass.STATIC, plain(200, b"mac"), Lifetime(until, until), 0.0, "owner")


class School:
    """One answer in a store, a plan for it, and what a worker was taught."""

    def __init__(self, burst: float = 4000) -> None:
        self.board, self.tally = Board(), Tally()
        self.pins = Pins(self.board)
        self.lessons = Lessons(self.pins, self.tally.bump)
        self.store = AnswerStore(100, 1 << 20)
        self.store.put(TARGET.key, entry := stored())
        self.entry, self.bucket, self.failure = entry, TokenBucket(1, burst, NOW), Failure()
        self.service: Any = SimpleNamespace(policy=object())
        alike = Alike(StableCaller(uid=1), "legacy", "/mac", "static", "allowed", "", "", "")
        self.cell = Cell(alike, Session.LEGACY)

    def plan(self, **changes: Any) -> Plan:
        facts: dict[str, Any] = {
            "wire": b"answer",
            "entry": self.entry,
            "until": math.inf,
            "service": self.service,
            "policy": self.service.policy,
            "bucket": self.bucket,
            "cell": self.cell,
            "bump": self.tally.bump,
            "closes": False,
        }
        return Plan(**{**facts, **changes})

    def make(self, plan: Plan | None = None, short: bool = False) -> tuple[Lesson, int] | None:
        return self.lessons.make(plan or self.plan(), self.failure, NOW, short)

    def made(self) -> Lesson:
        made = self.make()
        assert made is not None
        return made[0]

    def holds(self, lesson: Lesson) -> bool:
        stamps = self.board.stamps
        return stamps[0] == lesson.generation and stamps[lesson.slot] == lesson.stamp


def test_a_lesson_is_good_for_as_long_as_answer_and_token_are() -> None:
    school = School()
    assert school.made().until == 100.0
    earlier = school.make(school.plan(until=70.0))
    assert earlier is not None
    assert earlier[0].until == 70.0


@pytest.mark.parametrize("how", ["replaced", "forgotten", "limited", "evicted"])
def test_a_lesson_ends_with_the_answer_at_that_moment(how: str) -> None:
    school = School()
    lesson = school.made()
    assert school.holds(lesson)
    if how == "replaced":
        school.store.put(TARGET.key, stored())
    elif how == "forgotten":
        school.store.forget(TARGET.key)
    elif how == "limited":
        school.store.limit(school.entry, Lifetime(60.0, 60.0))
    else:
        school.store.change(0, 0)
    assert not school.holds(lesson)


def test_an_answer_that_comes_in_its_place_is_another_lesson() -> None:
    school = School()
    first = school.made()
    school.store.put(TARGET.key, entry := stored())
    made = school.make(school.plan(entry=entry))
    assert made is not None
    assert school.holds(made[0])
    assert (made[0].slot, made[0].stamp) != (first.slot, first.stamp)


def test_one_answer_has_one_place_whoever_was_taught_it() -> None:
    school = School()
    other = Lessons(school.pins, school.tally.bump)
    made = other.make(school.plan(), school.failure, NOW, False)
    assert made is not None
    first = school.made()
    assert (first.slot, first.stamp) == (made[0].slot, made[0].stamp)


def test_a_token_lasts_and_ends_with_its_generation_only() -> None:
    school = School()
    made = school.make(school.plan(entry=Lasting(90.0)))
    assert made is not None
    assert school.holds(made[0])
    school.board.renew()
    assert not school.holds(made[0])


def test_what_the_daemon_would_not_answer_by_heart_is_not_taught() -> None:
    school = School()
    assert school.make(school.plan(policy=object())) is None
    assert school.make(school.plan(until=NOW)) is None
    assert school.make(school.plan(entry=Lasting(NOW))) is None
    assert school.make(school.plan(wire=b"x" * 5000)) is None
    school.failure.note(NOW - 5, "token:deadline")
    assert school.make() is None


def test_a_small_bucket_is_not_lent_from() -> None:
    """So the daemon takes from it, and says when there is none left."""
    school = School(burst=5)
    assert school.make() is None
    assert [school.bucket.take(NOW) for _ in range(6)] == [True] * 5 + [False]


def test_lessons_of_one_caller_share_what_is_lent() -> None:
    school = School()
    lent = [made[1] for _ in range(5) if (made := school.make()) is not None]
    assert lent == [256, 0, 0, 0, 0]
    assert school.make(short=True) is not None  # that much was used up


def test_what_is_lent_and_what_is_here_are_never_more_than_the_bucket() -> None:
    school = School(burst=100)
    made = school.make()
    assert made is not None
    lesson, lent = made
    while more := school.lessons.more(lesson.lease, NOW + 1000):
        lent += more
    here = sum(school.bucket.take(NOW + 5000) for _ in range(200))
    assert 0 < lent <= 25
    assert lent + here == 100
    school.lessons.settle(lesson.lease, used=lent - 2, unused=2, now=NOW + 5000)
    assert sum(school.bucket.take(NOW + 5000) for _ in range(200)) == 2


def test_what_a_dead_worker_had_is_lost_and_not_given_twice() -> None:
    school = School(burst=100)
    made = school.make()
    assert made is not None
    school.lessons.lost(NOW)
    assert sum(school.bucket.take(NOW) for _ in range(200)) == 100 - made[1]
    assert sum(school.bucket.take(NOW + 1000) for _ in range(200)) == 100  # and whole again in time


def test_what_is_counted_is_booked_where_the_daemon_would_have() -> None:
    school = School()
    lesson = school.made()
    school.lessons.count([(lesson.number, 7), (999, 1)], NOW)
    assert (school.entry.hits, school.entry.used_at) == (7, NOW)
    assert [(alike.path, count) for alike, count in school.tally.take()] == [("/mac", 7)]
    school.lessons.forget(lesson.number)
    school.lessons.count([(lesson.number, 1)], NOW)
    assert school.tally.take() == []
