"""What is remembered for callers that are alike: apart for each kind of caller, and bounded."""

from __future__ import annotations

import dataclasses

from imds_proxy.policy.caller import Caller, Identity, Process, Program
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.protocol.request import HeadRules, Request, RequestReader
from imds_proxy.server.memory import Memory, client_of

HOSTS = frozenset({b"100.100.100.200"})
A = Caller(Identity(1000, unit="a.service"), process=Process(7, "/usr/bin/a"), start_ticks=1)
RULES = HeadRules(ALIBABA, ItemClassifier(ALIBABA), 16384, 2048)


def head(number: int) -> bytes:
    return b"GET /latest/meta-data/%d HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n" % number


def request() -> Request:
    reader = RequestReader(RULES, {})
    reader.feed(head(0))
    found = reader.next()
    assert isinstance(found, Request)
    return found


def test_callers_that_are_alike_share_and_others_do_not() -> None:
    memory = Memory()
    mine = memory.of(A, HOSTS, 0)
    again = dataclasses.replace(A, process=Process(8, "/usr/bin/a"), start_ticks=2)
    assert memory.of(again, HOSTS, 0) is mine
    others = [
        memory.of(dataclasses.replace(A, identity=Identity(1001, unit="a.service")), HOSTS, 0),
        memory.of(dataclasses.replace(A, process=Process(7, "/usr/bin/b")), HOSTS, 0),
        memory.of(dataclasses.replace(A, program=Program(script="/srv/x.py")), HOSTS, 0),
        memory.of(A, frozenset({b"10.0.0.1"}), 0),
        memory.of(A, HOSTS, 1),
    ]
    assert len({id(one) for one in (mine, *others)}) == 6


def test_a_reader_finds_the_same_request_for_the_same_bytes() -> None:
    memory = Memory()
    reader = RequestReader(RULES, memory.of(A, HOSTS, 0))
    reader.feed(head(1) + head(1))
    first, unknown = reader.next(), reader.known
    assert (reader.next() is first, unknown, reader.known) == (True, None, head(1))


def test_unique_heads_of_one_caller_are_bounded_and_evict_nobody_elses() -> None:
    memory, known = Memory(size=1_000_000), request()
    kept = memory.of(dataclasses.replace(A, identity=Identity(1)), HOSTS, 0)
    kept[head(0)] = known
    for number in range(10_000):
        script = Program(script=f"/srv/{number % 50}.py")
        greedy = memory.of(dataclasses.replace(A, program=script), HOSTS, 0)
        greedy[head(number)] = known
        assert memory._cost <= 1_000_000
    assert kept.get(head(0)) is known


def test_the_largest_forgets_first_where_all_together_are_too_much() -> None:
    memory, known = Memory(size=400_000), request()
    for uid in range(128):
        one = memory.of(dataclasses.replace(A, identity=Identity(uid)), HOSTS, 0)
        for number in range(20 if uid == 50 else 1):
            one[head(number)] = known
    assert memory._cost <= 400_000
    forgotten = memory.of(dataclasses.replace(A, identity=Identity(50)), HOSTS, 0)
    assert head(0) not in forgotten._heads
    assert memory.of(dataclasses.replace(A, identity=Identity(127)), HOSTS, 0).get(head(0)) is known


def test_a_plan_is_kept_for_a_known_head_only() -> None:
    remembered = Memory().of(A, HOSTS, 0)
    remembered.keep(head(0), None)  # type: ignore[arg-type]  # a stand-in
    assert remembered.plans == {}
    remembered[head(0)] = request()
    remembered.keep(head(0), None)  # type: ignore[arg-type]
    assert list(remembered.plans) == [head(0)]
    for number in range(1, 300):
        remembered[head(number)] = request()
    assert remembered.plans == {}


def test_when_a_client_failed_is_of_one_process_and_outlives_a_reload() -> None:
    memory = Memory()
    memory.failure_of(A).note(5.0, "left")
    other = dataclasses.replace(A, process=Process(8, "/usr/bin/a"))
    assert memory.renewed().failure_of(A).at == 5.0
    assert memory.failure_of(other).at < 0


def test_what_h11_said_of_a_head_serves_other_callers_and_a_reload_forgets_it() -> None:
    memory, known = Memory(), request()
    memory.of(A, HOSTS, 0)[head(0)] = known
    other = memory.of(dataclasses.replace(A, identity=Identity(1001)), HOSTS, 0)
    assert other.get(head(0)) is known
    assert other.plans == {}
    assert memory.renewed().of(A, HOSTS, 0).get(head(0)) is None
    for number in range(5000):
        other[head(number)] = known
        assert len(memory.common) <= 2048


def test_a_failure_is_told_also_after_a_reload() -> None:
    told: list[tuple[object, float]] = []
    memory = Memory()
    memory.failed = lambda client, now: told.append((client, now))
    memory.failure_of(A).note(5.0, "token:deadline")
    memory.renewed().failure_of(dataclasses.replace(A, start_ticks=9)).note(6.0, "token:deadline")
    assert told == [((7, 1), 5.0), ((7, 9), 6.0)]
    assert client_of(Caller(Identity(None, origin="10.0.0.1"))) == Identity(None, origin="10.0.0.1")
