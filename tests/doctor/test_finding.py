"""How findings look."""

from __future__ import annotations

import json

from imds_proxy.doctor.finding import Finding, as_json, as_text

FINDINGS = (Finding("a", "ok", "fine"), Finding("longer", "bad", "evil\x1b[31m\n", "do\u202e this"))


def test_the_table_has_a_line_for_a_finding_and_one_for_its_remedy() -> None:
    assert as_text(FINDINGS).splitlines() == [
        "ok       a       fine",
        r"bad      longer  evil\x1b[31m\n",
        r"                 -> do\u202e this",
    ]


def test_json_is_one_ascii_line_with_null_for_no_remedy() -> None:
    text = as_json(FINDINGS)
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["findings"][0] == {"slug": "a", "state": "ok", "sentence": "fine", "remedy": None}
    assert json.loads(text)["findings"][1]["sentence"] == r"evil\x1b[31m\n"
