"""Decisions: form, then mode, then identity; what audit lets go is said, what is in force is refused."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from imds_proxy.errors import BROWSER, HOST, LEGACY_REFUSED, RELAYED, TOKEN_BINDING, UNRESOLVED, Refusal
from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.policy.decision import ALLOWED, Decision, DecisionMemo, Policy
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.session import Session
from imds_proxy.protocol.target import canonical_target

HOSTS = frozenset({b"100.100.100.200"})
PLAIN = Request(
    method="GET",
    target=canonical_target(b"/latest/meta-data/mac"),
    item=ItemClass.STATIC,
    host=b"100.100.100.200",
    token=None,
    ttl=None,
    relayed=None,
    browser=None,
    browser_agent=False,
    evidence=(),
    keep_alive=True,
    is_put=False,
)
NAMED = Caller(Identity(1000))
UNNAMED = Caller(Identity(None, origin="127.0.0.1"))
SECRET = dataclasses.replace(PLAIN, target=canonical_target(b"/latest/user-data"))


def policy(mode: str = "upgrade", enforcing: bool = False) -> Policy:
    return Policy(mode, enforcing, SensitivePaths(["user-data"]))


def decide(
    request: Request = PLAIN,
    session: Session = Session.LEGACY,
    *,
    mode: str = "upgrade",
    enforcing: bool = False,
    resolved: bool = True,
    elsewhere: bool = False,
) -> Decision:
    return policy(mode, enforcing).decide(
        request, session, HOSTS, NAMED if resolved else UNNAMED, DecisionMemo(), elsewhere
    )


@pytest.mark.parametrize("session", Session)
def test_a_plain_request_of_a_named_caller_is_allowed(session: Session) -> None:
    assert decide(session=session) is ALLOWED


@pytest.mark.parametrize("host", [b"evil.example", b"100.100.100.200.", b"100.100.100.200:81", b"", b"[::1]"])
@pytest.mark.parametrize("session", Session)
def test_a_foreign_host_is_refused_in_every_session(host: bytes, session: Session) -> None:
    assert decide(dataclasses.replace(PLAIN, host=host), session).refusal is HOST


def test_without_a_host_an_old_request_is_allowed() -> None:
    assert decide(dataclasses.replace(PLAIN, host=None)) is ALLOWED


@pytest.mark.parametrize("session", [Session.LEGACY, Session.FALLBACK, Session.TOKEN])
def test_a_relayed_request_or_that_of_a_browser_is_refused_without_a_token(session: Session) -> None:
    assert decide(dataclasses.replace(PLAIN, relayed=b"via"), session).refusal is RELAYED
    assert decide(dataclasses.replace(PLAIN, browser=b"origin"), session).refusal is BROWSER


def test_with_a_token_neither_is_evidence() -> None:
    evident = dataclasses.replace(PLAIN, relayed=b"via", browser=b"origin", browser_agent=True)
    assert decide(evident, Session.HARDENED) is ALLOWED


@pytest.mark.parametrize("session", [Session.LEGACY, Session.FALLBACK])
def test_a_browsers_agent_may_read_what_is_not_sensitive(session: Session) -> None:
    assert decide(dataclasses.replace(PLAIN, browser_agent=True), session) is ALLOWED
    assert decide(dataclasses.replace(SECRET, browser_agent=True), session).refusal is BROWSER


@pytest.mark.parametrize("session", [Session.LEGACY, Session.FALLBACK])
def test_enforce_refuses_normal_mode(session: Session) -> None:
    """Row 30c: a fallback is a legacy call."""
    assert decide(session=session, mode="enforce").refusal is LEGACY_REFUSED


@pytest.mark.parametrize("session", [Session.HARDENED, Session.TOKEN])
def test_enforce_allows_hardened_mode(session: Session) -> None:
    assert decide(session=session, mode="enforce") is ALLOWED


@pytest.mark.parametrize(
    ("request_", "resolved", "elsewhere", "refusal"),
    [
        (SECRET, False, False, UNRESOLVED),
        (PLAIN, True, True, TOKEN_BINDING),
        (SECRET, False, True, TOKEN_BINDING),
    ],
)
def test_refusals_by_identity_are_reported_in_audit_and_in_force_in_enforce(
    request_: Request, resolved: bool, elsewhere: bool, refusal: Refusal
) -> None:
    audit = decide(request_, Session.HARDENED, resolved=resolved, elsewhere=elsewhere)
    assert (audit.refusal, audit.would_refuse) == (None, refusal)
    force = decide(request_, Session.HARDENED, enforcing=True, resolved=resolved, elsewhere=elsewhere)
    assert (force.refusal, force.would_refuse) == (refusal, None)


def test_an_unresolved_caller_may_read_what_is_not_sensitive_and_fetch_a_token() -> None:
    assert decide(enforcing=True, resolved=False) is ALLOWED
    put = dataclasses.replace(SECRET, is_put=True)
    assert decide(put, Session.TOKEN, enforcing=True, resolved=False) is ALLOWED


def test_passthrough_refuses_nothing_and_says_what_it_would() -> None:
    for session, resolved, elsewhere in itertools.product(Session, (True, False), (True, False)):
        for request in (PLAIN, SECRET, dataclasses.replace(PLAIN, host=b"evil")):
            decision = decide(
                request, session, mode="passthrough", enforcing=True, resolved=resolved, elsewhere=elsewhere
            )
            assert decision.refusal is None
    assert decide(dataclasses.replace(PLAIN, host=b"evil"), mode="passthrough").would_refuse is HOST


def test_never_both_a_refusal_and_a_would_be_one() -> None:
    for mode, enforcing, session, resolved, elsewhere in itertools.product(
        ("upgrade", "enforce", "passthrough"), (True, False), Session, (True, False), (True, False)
    ):
        for request in (PLAIN, SECRET, dataclasses.replace(SECRET, relayed=b"via", browser_agent=True)):
            decision = decide(
                request, session, mode=mode, enforcing=enforcing, resolved=resolved, elsewhere=elsewhere
            )
            assert not (decision.refusal and decision.would_refuse)
