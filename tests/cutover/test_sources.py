"""The provider's own counts and traces, beside the ledger."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.cutover.sources import Traced, normal_mode_counts, traced_calls, unseen

TRACE = """
[INFO] tracing
[WARNING] IMDSv1(!) (pid:4711:curl argv:curl -s http://100.100.100.200/latest/) called by -> (pid:1:init)
2026-11-20 10:00:01 [INFO] IMDSv2 (pid:9:java argv:java -jar a.jar)
WARNING pid=88 something else
"""


def test_the_api_and_the_console_give_the_same_counts() -> None:
    points = [
        {"instanceId": "i-a", "Sum": 3},
        {"instanceId": "i-b", "Sum": 0},
        {"instanceId": "i-a", "Sum": 1},
    ]
    expected = {"i-a": 4.0, "i-b": 0.0}
    assert normal_mode_counts(json.dumps({"Datapoints": json.dumps(points)})) == expected
    assert normal_mode_counts(json.dumps({"Datapoints": points})) == expected
    assert normal_mode_counts(json.dumps(points)) == expected
    assert normal_mode_counts("time,InstanceId,Value\n1,i-a,3\n1,i-b,0\n2,i-a,1\n") == expected


@pytest.mark.parametrize(
    "text",
    [
        "{x",
        "[1]",
        '{"Datapoints": "x"}',
        "a,b\n1,2\n",
        "instance,value\ni-a,many\n",
        '[{"instanceId": "i-a"}]',
    ],
)
def test_what_is_neither_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"CloudMonitor|datapoint|number"):
        normal_mode_counts(text)


def test_the_analyzers_warnings_name_callers() -> None:
    assert traced_calls(TRACE) == [
        Traced(4711, "curl", "curl -s http://100.100.100.200/latest/"),
        Traced(88, None, None),
    ]


def test_what_the_ledger_did_not_see_is_a_named_gap() -> None:
    calls = [
        Traced(1, "curl", "curl -s x"),
        Traced(2, "python3", None),
        Traced(3, "miner", "./miner"),
        Traced(4, None, None),
    ]
    callers: list[dict[str, Any]] = [
        {"exe": "/usr/bin/curl", "script": None},
        {"exe": "/usr/bin/python3.11", "script": "/srv/a.py"},
    ]
    assert list(unseen({"i-a": 2.0, "i-b": 0.0}, calls, callers)) == [
        "i-a: CloudMonitor counted 2 normal-mode calls, past the proxy",
        "miner was seen by the packet analyzer and is not in the ledger (./miner)",
        "process 4 was seen by the packet analyzer and is not in the ledger",
    ]


@given(st.text())
def test_no_text_breaks_the_readers(text: str) -> None:
    traced_calls(text)
    try:
        normal_mode_counts(text)
    except ValueError as error:
        assert str(error)
