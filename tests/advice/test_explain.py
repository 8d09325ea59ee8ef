"""Explanations: the deciding rule, and of each earlier one why it does not decide."""

from __future__ import annotations

import pytest

from imds_proxy.advice.explain import Explanation, caller_of, explain
from imds_proxy.config import parse
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import policy_of

POLICY = policy_of(
    parse(
        """
policy:
  enforcement: enforce
  rules:
    - {name: billing, caller: {user: billing, unit: billing.service}, paths: meta-data/ram/**, legacy: refuse}
    - {name: no credentials, paths: meta-data/ram/**, allow: false, enforcement: audit}
""",
        "f",
    )
)
ROLE = "/latest/meta-data/ram/security-credentials/role"


def why(path: str = ROLE, session: Session = Session.LEGACY, **facts: str) -> Explanation:
    return explain(POLICY, caller_of(dict(facts)), path, session)


def test_the_first_rule_that_agrees_decides() -> None:
    found = why(user="billing", unit="billing.service", session=Session.HARDENED)
    assert (found.outcome, found.steps) == ("allowed", (("billing", "decides: allows, legacy: refuse"),))
    assert why(user="billing", unit="billing.service").outcome == "refused"


def test_earlier_rules_say_why_they_do_not_decide() -> None:
    found = why(user="web", unit="web.service")
    assert found.outcome == "would-refuse"
    assert found.steps == (
        ("billing", "no: user is web, not billing"),
        ("no credentials", "decides: refuses"),
    )
    other = why("user-data", user="billing", unit="billing.service")
    assert other.steps == (
        ("billing", "no: it means other paths"),
        ("no credentials", "no: it means other paths"),
    )
    assert other.sensitive == "user-data"
    assert "none means this caller and path" in other.as_text()


def test_who_is_unknown_is_refused_what_is_sensitive() -> None:
    assert why("user-data").as_json()["slug"] == "unresolved"
    assert why("user-data", container="c" * 64, user="root").as_json()["slug"] == "container"
    assert why("meta-data/mac").outcome == "allowed"


def test_the_text_has_every_part() -> None:
    text = why(user="web").as_text()
    for part in (
        "path",
        "sensitive: meta-data/ram/**",
        "session   legacy",
        "rule      billing: no",
        "outcome",
    ):
        assert part in text


@pytest.mark.parametrize("path", ["/a/../b", "/ü", "/a%2fb"])
def test_a_path_that_the_proxy_refuses_is_said_to_be(path: str) -> None:
    with pytest.raises(ValueError, match="the path is refused"):
        why(path)


def test_a_uid_is_a_number_and_a_numeric_user_is_one() -> None:
    with pytest.raises(ValueError, match="a uid is a number"):
        caller_of({"uid": "x"})
    assert caller_of({"user": "1000"}).identity.uid == 1000
    assert not caller_of({"exe": "/x"}).identity.resolved
