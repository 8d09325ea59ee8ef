"""Every refusal: one slug, one status, one sentence, the same in the code and in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imds_proxy.errors import DEADLINE, REFUSALS, Refusal, Refused

README = Path(__file__).parent.parent / "README.md"
ROW = re.compile(r"^\| `([a-z-]+)` \| (\d{3}) \| (.*) \|$", re.MULTILINE)


def test_the_readmes_table_is_the_codes() -> None:
    table = [(slug, int(status), text) for slug, status, text in ROW.findall(README.read_text())]
    assert table == [(one.slug, one.status, one.sentence) for one in REFUSALS]


def test_no_two_refusals_share_a_slug() -> None:
    assert len({one.slug for one in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: one.slug)
def test_a_refusal_is_one_plain_sentence_with_an_error_status(refusal: Refusal) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", refusal.slug)
    assert 400 <= refusal.status < 600
    assert refusal.sentence.endswith(".")
    assert refusal.sentence.isascii()
    assert not set("<>&\r\n") & set(refusal.sentence)  # it stands in a page as it is


def test_only_what_is_a_matter_of_rate_is_429_which_a_client_reads_as_its_own_fault() -> None:
    assert {one.slug for one in REFUSALS if one.status == 429} == {"rate", "busy"}


def test_what_was_refused_says_why_in_one_line() -> None:
    assert str(Refused(DEADLINE)) == f"deadline: {DEADLINE.sentence}"
    assert str(Refused(DEADLINE, "connect")) == "deadline: connect"
    assert Refused(DEADLINE, retry_after=3).retry_after == 3
