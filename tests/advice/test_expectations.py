"""Expectations beside the policy: met, not met, or a file that is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from imds_proxy.advice.expectations import run
from imds_proxy.config import parse
from imds_proxy.server.build import policy_of

POLICY = policy_of(
    parse(
        "policy: {enforcement: enforce, rules: "
        "[{name: no, caller: {user: web}, paths: user-data, allow: false}]}",
        "f",
    )
)


def outcome(tmp_path: Path, text: str) -> tuple[int, str, str]:
    file = tmp_path / "expect.yaml"
    file.write_text(text)
    out, err = io.StringIO(), io.StringIO()
    return run(POLICY, file, out, err), out.getvalue(), err.getvalue()


def test_met_expectations_are_counted(tmp_path: Path) -> None:
    code, out, _ = outcome(
        tmp_path,
        """
expect:
  - {name: web reads no user-data, caller: {user: web}, path: user-data, outcome: refused, rule: 'no'}
  - {caller: {user: app}, path: /latest/user-data, session: hardened}
""",
    )
    assert (code, out) == (
        0,
        "ok 1 - web reads no user-data\nok 2 - /latest/user-data (hardened)\n2 of 2 expectations are met\n",
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ("{caller: {user: web}, path: user-data}", "it is refused (rule), by rule no"),
        ("{caller: {user: app}, path: user-data, outcome: refused}", "it is allowed, by rule None"),
        ("{caller: {user: web}, path: user-data, outcome: refused, rule: other}", "rule no decides"),
        ("{caller: {uid: x}, path: user-data}", "a uid is a number"),
        ("{path: /a/../b}", "the path is refused"),
    ],
)
def test_one_that_is_not_met_says_what_is(tmp_path: Path, one: str, said: str) -> None:
    code, out, _ = outcome(tmp_path, f"expect:\n  - {one}\n")
    assert code == 1
    assert out.startswith("not ok 1 - ")
    assert said in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing is expected"),
        ("expect: []", "nothing is expected"),
        ("expect: [{caller: {user: x}}]", "expect[1] has no path"),
        ("expect: [{path: x, outcome: maybe}]", "allowed is allowed | would-refuse | refused"),
        ("expects: []", "did you mean 'expect'?"),
    ],
)
def test_a_wrong_file_is_refused_as_a_configuration_is(tmp_path: Path, text: str, said: str) -> None:
    code, _, err = outcome(tmp_path, text)
    assert code == 78
    assert said in err


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert run(POLICY, tmp_path / "none", out, err) == 78
    assert "no such file" in err.getvalue()
