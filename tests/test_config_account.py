from __future__ import annotations

import pytest

from imds_proxy.config import ConfigErrors, parse

ALLOWED = "allowed is auto, a user's name, or its number"


@pytest.mark.parametrize("user", ["auto", "imds-proxy", "_imds", "0", "64998", "'64998'", "4294967294"])
def test_a_user_is_a_name_or_a_number(user: str) -> None:
    assert parse(f"user: {user}", "f").user == user.strip("'")


@pytest.mark.parametrize(
    "user", ["yes", "-1", "010", "4294967295", "a b", "Root", '""', "1.5", "../x", "a" * 40, "[root]"]
)
def test_anything_else_is_refused_with_what_is_allowed(user: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        parse(f"\nuser: {user}", "f")
    assert str(refused.value).startswith("f:2: ")
    assert ALLOWED in str(refused.value) or user == "[root]"
