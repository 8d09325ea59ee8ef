"""What the log says of requests."""

from __future__ import annotations

import io
import json
from typing import Any, cast

from imds_proxy.errors import LEGACY_REFUSED, TOKEN_BINDING, UNREACHABLE
from imds_proxy.ledger.entries import Described, StableCaller
from imds_proxy.ledger.tally import Tally
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.protocol.session import Session
from imds_proxy.server.clientdesk import ClientDesk
from imds_proxy.server.events import Outcome, RequestEvents
from imds_proxy.server.log import Log

CRON = Caller(
    Identity(0, unit="cron.service"),
    user="root",
    process=Process(7, "/usr/bin/curl", "curl", ("curl", "http://100.100.100.200/latest/")),
    parents=(Process(6, "/bin/sh"), Process(1, "/sbin/init")),
)


def logged(*outcomes: Outcome, summarise: bool = False) -> list[dict[str, Any]]:
    stream = io.StringIO()
    log = Log("json", stream)
    events = RequestEvents(log, Tally(), lambda: 0.0)
    for outcome in outcomes:
        events.record(outcome, events.tally_of(outcome.caller))
    if summarise:
        events.take()
        events.summarise()
    log.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def outcome(session: Session = Session.LEGACY, caller: Caller = CRON, **more: Any) -> Outcome:
    return Outcome(caller, session, more.pop("path", "/latest/meta-data/mac"), "static", **more)


def test_a_new_legacy_caller_is_named_at_once_and_only_once() -> None:
    (line,) = logged(*[outcome()] * 5)
    assert line["event"] == "legacy-caller"
    assert (line["uid"], line["unit"], line["pid"], line["exe"]) == (0, "cron.service", 7, "/usr/bin/curl")
    assert line["parents"] == ["6:/bin/sh", "1:/sbin/init"]


def test_a_fallback_is_told_apart_from_a_legacy_call() -> None:
    events = [line["event"] for line in logged(outcome(Session.FALLBACK), outcome(Session.LEGACY))]
    assert events == ["fallback-caller", "legacy-caller"]


def test_hardened_callers_are_counted_without_a_line_of_their_own() -> None:
    (line,) = logged(outcome(Session.HARDENED), outcome(Session.TOKEN), summarise=True)
    assert line["event"] == "caller-summary"
    assert line["sessions"] == {"hardened": 1, "token": 1}


def test_a_refusal_and_what_audit_let_go_are_told_apart() -> None:
    lines = logged(outcome(refusal=LEGACY_REFUSED), outcome(would_refuse=TOKEN_BINDING))
    assert [(line["event"], line.get("slug")) for line in lines[1:]] == [
        ("refused", "legacy-refused"),
        ("would-refuse", "token-binding"),
    ]


def test_a_flood_of_new_callers_and_refusals_is_bounded() -> None:
    callers = [Caller(Identity(uid)) for uid in range(5000)]
    lines = logged(*[outcome(caller=caller, refusal=LEGACY_REFUSED) for caller in callers])
    assert len(lines) <= 400


def test_one_callers_flood_hides_no_other_callers_refusal() -> None:
    other = Caller(Identity(1000))
    flood = [outcome(refusal=LEGACY_REFUSED)] * 10_000
    lines = logged(*flood, outcome(caller=other, refusal=TOKEN_BINDING))
    refused = [line for line in lines if line["event"] == "refused"]
    assert len(refused) == 51
    assert (refused[-1]["uid"], refused[-1]["suppressed"]) == (1000, 9950)


def test_what_was_suppressed_is_said() -> None:
    stream = io.StringIO()
    log = Log("json", stream)
    now = 0.0
    events = RequestEvents(log, Tally(), lambda: now)
    for _ in range(100):
        events.record(outcome(Session.HARDENED, refusal=LEGACY_REFUSED), events.tally_of(CRON))
    now = 10.0
    events.record(outcome(Session.HARDENED, refusal=LEGACY_REFUSED), events.tally_of(CRON))
    log.close()
    assert json.loads(stream.getvalue().splitlines()[-1])["suppressed"] == 50


def taken(*outcomes: Outcome) -> dict[tuple[str, ...], int]:
    events = RequestEvents(Log("json", io.StringIO()), Tally(), lambda: 0.0)
    for one in outcomes:
        events.record(one, events.tally_of(one.caller))
    assert events.counts[Session.LEGACY] == sum(one.session is Session.LEGACY for one in outcomes)
    sums: dict[tuple[str, ...], int] = {
        (a.session, a.decision, a.reason, a.cause, a.agent): count for a, count in events.take()
    }
    assert events.take() == []
    return sums


def test_requests_are_counted_by_session_decision_reason_cause_and_client() -> None:
    agent = "curl/8 token=abc\x1b"
    assert taken(
        outcome(agent=agent),
        outcome(agent=agent),
        outcome(refusal=LEGACY_REFUSED),
        outcome(refusal=UNREACHABLE),
        outcome(would_refuse=TOKEN_BINDING),
        outcome(Session.FALLBACK, cause="deadline"),
    ) == {
        ("legacy", "allowed", "", "", "curl/8 token=***"): 2,
        ("legacy", "refused", "legacy-refused", "", ""): 1,
        ("legacy", "failed", "unreachable", "", ""): 1,
        ("legacy", "would-refuse", "token-binding", "", ""): 1,
        ("fallback", "allowed", "", "deadline", ""): 1,
    }


def test_a_caller_that_reads_ever_new_items_is_summed_up_before_one_is_dropped() -> None:
    lines = logged(*[outcome(path=f"/latest/{n}") for n in range(600)], summarise=True)
    summaries = [line for line in lines if line["event"] == "caller-summary"]
    assert sum(line["sessions"].get("legacy", 0) for line in summaries) == 600
    assert len({item for line in summaries for item in line["items"]}) == 600
    assert all(len(line["items"]) <= 64 for line in summaries)


class Desk:
    """Looks at once."""

    def __init__(self) -> None:
        self.found: list[Described] = []

    def saw(self, caller: Caller, stable: StableCaller, *call: object) -> None:
        self.found.append(Described(stable.key, None, (), "upgrade", "upgrade", True))

    def take(self) -> list[Described]:
        found, self.found = self.found, []
        return found


def test_what_is_found_out_before_the_answer_waits_until_the_ledger_knows_the_caller() -> None:
    log = Log("json", io.StringIO())
    events = RequestEvents(log, Tally(), lambda: 0.0, cast(ClientDesk, Desk()))
    events.expect(CRON, Session.LEGACY, "/latest/meta-data/mac", "curl/7", "")
    assert events.described() == []
    events.record(outcome(), events.tally_of(CRON))
    assert events.take()
    assert {one.advice for one in events.described()} == {"upgrade"}
    assert events.described() == []
    events.expect(CRON, Session.LEGACY, "/latest/meta-data/mac", "curl/7", "")
    assert len(events.described()) == 1, "a caller that is known waits for nothing"
    log.close()
