"""Counts of calls to the service, and whether it answered last."""

from __future__ import annotations

import pytest

from imds_proxy.errors import DEADLINE, UNREACHABLE, Refused
from imds_proxy.upstream.traffic import Traffic


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (304, "ok"),
        (404, "missing"),
        (401, "refused"),
        (403, "refused"),
        (429, "throttled"),
        (503, "throttled"),
        (400, "error"),
        (500, "error"),
    ],
)
@pytest.mark.parametrize(("method", "kind"), [("GET", "get"), ("HEAD", "get"), ("PUT", "put")])
def test_an_answer_is_counted_by_what_it_means(method: str, kind: str, status: int, outcome: str) -> None:
    traffic = Traffic(lambda: 7.0)
    traffic.answered(method, status)
    assert traffic.counts[kind, outcome] == 1 == sum(traffic.counts.values())
    assert traffic.answers


def test_no_answer_is_a_failure_with_its_reason_until_the_next_answer() -> None:
    now = [0.0]
    traffic = Traffic(lambda: now[0])
    now[0] = 5.0
    traffic.failed("GET", Refused(UNREACHABLE, "ECONNREFUSED"))
    assert (traffic.answers, traffic.last_at) == (False, 5.0)
    assert traffic.state == "cannot be reached (ECONNREFUSED)"
    traffic.failed("GET", Refused(DEADLINE, "upstream.read_timeout"))
    assert traffic.state == "does not answer as it should (upstream.read_timeout)"
    traffic.answered("GET", 500)
    assert traffic.answers, "it is there, whatever it says"
    assert traffic.throttled == 0
