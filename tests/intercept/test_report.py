from __future__ import annotations

import json
from dataclasses import replace

import pytest

from imds_proxy.intercept.report import Report, as_text, exit_code, read

_REPORT = Report(
    "in-force",
    True,
    "open",
    "nftables",
    "owner-table",
    "imds_proxy_x",
    ["100.100.100.200:80"],
    ["169.254.100.200:200"],
    ["cni*"],
    ["a note"],
    [{"local": "10.0.0.1:5", "remote": "100.100.100.200:80", "uid": 7, "pid": 3, "exe": "/usr/bin/x"}],
)


def test_a_report_survives_json() -> None:
    assert read(json.loads(json.dumps(_REPORT.as_json()))) == _REPORT
    assert _REPORT.as_json()["schema"] == 1


def test_what_is_no_report_is_refused() -> None:
    with pytest.raises(ValueError, match="'state' is missing"):
        read({})


@pytest.mark.parametrize(
    ("state", "code"), [("in-force", 0), ("lapsed", 1), ("refusing", 1), ("off", 1), ("unknown", 3)]
)
def test_the_exit_code_is_the_state(state: str, code: int) -> None:
    assert exit_code(replace(_REPORT, state=state)) == code  # type: ignore[arg-type]


def test_a_person_reads_what_is_in_force_and_what_goes_past_it() -> None:
    assert as_text(_REPORT).splitlines() == [
        "in force: calls to the metadata service come to the proxy",
        "method: nftables (imds_proxy_x; removed by the kernel when the daemon dies)",
        "from 100.100.100.200:80 to 169.254.100.200:200",
        "forwarded traffic: cni*",
        "when the daemon dies: open",
        "note: a note",
        "goes past it: 10.0.0.1:5 to 100.100.100.200:80, /usr/bin/x (pid 3), uid 7",
        "close these with: imds-proxy intercept up --takeover",
    ]


def test_many_connections_are_summed_up() -> None:
    text = as_text(replace(_REPORT, daemon=False, passing=[*_REPORT.passing] * 25))
    assert "no daemon answers" in text
    assert "goes past it: 5 more" in text
