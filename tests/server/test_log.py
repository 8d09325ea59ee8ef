"""The log: lines stay lines, and a stalled reader stalls nobody."""

from __future__ import annotations

import io
import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from imds_proxy.server.log import Log


@given(st.text(), st.text())
@settings(deadline=None, max_examples=50)
def test_any_text_is_one_ascii_json_line(message: str, fact: str) -> None:
    stream = io.StringIO()
    log = Log("json", stream)
    log.event("name", message, fact=fact)
    log.close()
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert json.loads(line)["event"] == "name"


@given(st.text())
@settings(deadline=None, max_examples=50)
def test_the_human_form_has_no_control_character(fact: str) -> None:
    stream = io.StringIO()
    log = Log("text", stream)
    log.event("name", fact, fact=fact)
    log.close()
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()


def test_long_facts_are_bounded_and_absent_ones_left_out() -> None:
    stream = io.StringIO()
    log = Log("json", stream)
    log.event("name", "m", long="x" * 1_000_000, absent=None)
    log.close()
    record = json.loads(stream.getvalue())
    assert len(record["long"]) < 3000
    assert "absent" not in record


def test_a_reader_that_stalls_costs_lines_not_time() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read):
        log = Log("json", stream)
        for number in range(30_000):  # more than the pipe and the queue hold
            log.event("name", "m" * 100, number=number)
        log.close(timeout=0.01)
        os.set_blocking(read, False)
        while True:  # let the writer end before its stream is closed
            try:
                if not os.read(read, 1 << 20):
                    break
            except BlockingIOError:
                if log._lines.empty():
                    break
