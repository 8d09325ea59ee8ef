"""How requests ended: what is told of them, and the answer to those that failed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from imds_proxy.errors import RATE, Refused
from imds_proxy.ledger.tally import Tally
from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.protocol.request import HeadRules, Request, RequestReader
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.session import Session
from imds_proxy.server.endings import Endings, cell_of
from imds_proxy.server.events import Outcome, RequestEvents
from imds_proxy.server.peer import Peer

CALLER = Caller(Identity(1000, unit="a.service"))


class Events:
    """Where endings are told: outcomes, and how often the same came again."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.bumped = 0

    def record(self, outcome: Outcome, tally: Any) -> None:
        self.outcomes.append(outcome)

    def tally_of(self, caller: Caller) -> Any:
        return None

    def bump(self, cell: Any) -> None:
        self.bumped += 1


def request() -> Request:
    reader = RequestReader(HeadRules(ALIBABA, ItemClassifier(ALIBABA), 8192, 1024), {})
    reader.feed(b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n")
    found = reader.next()
    assert isinstance(found, Request)
    return found


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def endings(events: Events) -> Endings:
    return Endings(cast(RequestEvents, events), lambda: 100.0)


def test_an_answer_of_the_service_goes_out_as_it_came(endings: Endings, events: Events) -> None:
    answer = plain(200, b"value")
    peer = Peer(CALLER, frozenset())
    assert endings.ended(request(), peer, Session.LEGACY, None, answer, stale=True) is answer
    (outcome,) = events.outcomes
    assert (outcome.caller, outcome.path, outcome.stale) == (CALLER, "/latest/meta-data/mac", True)


def test_a_refusal_has_its_page_and_its_reason(endings: Endings, events: Events) -> None:
    error = Refused(RATE, "limits.misses", retry_after=3)
    answer = endings.ended(request(), Peer(CALLER, frozenset()), Session.LEGACY, None, error)
    assert answer.status == RATE.status
    assert dict(answer.headers)[b"Retry-After"] == b"3"
    assert (events.outcomes[0].refusal, events.outcomes[0].detail) == (RATE, "limits.misses")


def test_a_defect_of_ours_fails_one_request_and_tells_where_but_not_what(
    endings: Endings, events: Events
) -> None:
    try:
        raise ValueError("a secret")
    except ValueError as error:
        answer = endings.ended(request(), Peer(CALLER, frozenset()), Session.LEGACY, None, error)
    assert answer.status >= 500
    assert events.outcomes[0].detail.startswith("ValueError in test_endings.py, line ")
    assert "secret" not in events.outcomes[0].detail


@pytest.mark.parametrize("session", [Session.TOKEN, Session.HARDENED])
def test_a_hardened_call_that_fails_is_noted_for_its_client(endings: Endings, session: Session) -> None:
    peer = Peer(CALLER, frozenset())
    endings.ended(request(), peer, session, None, plain(404, b""))
    assert (peer.failure.at, peer.failure.why) == (100.0, f"{session.value}:status-404")


def test_what_was_counted_before_is_counted_again_without_a_record(endings: Endings, events: Events) -> None:
    tally = Tally().of(CALLER)
    peer = Peer(CALLER, frozenset(), tally=tally)
    asked = request()
    assert cell_of(asked, peer, Session.LEGACY) is None
    tally.cells[asked.target.shown, Session.LEGACY, "", None] = cast(Any, object())
    endings.record(asked, peer, Session.LEGACY, 200, None, None)
    assert (events.outcomes, events.bumped) == ([], 1)
    endings.record(asked, peer, Session.LEGACY, 200, None, None, stale=True)  # that is news
    assert (len(events.outcomes), events.bumped) == (1, 1)
