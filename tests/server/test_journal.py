from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from imds_proxy.server.journal import prefixes
from imds_proxy.server.log import Log


def test_what_the_journal_reads_begins_with_how_much_it_matters(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        prefix = prefixes(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    events = ("cannot-listen", "would-refuse", "legacy-caller", "caller-summary")
    assert [prefix(one) for one in events] == ["<3>", "<4>", "<5>", "<6>"]


@pytest.mark.parametrize("named", ["", "1:2", "journal"])
def test_what_anything_else_reads_is_the_line_alone(tmp_path: Path, named: str) -> None:
    with (tmp_path / "journal").open("w") as stream:
        assert prefixes(stream, {"JOURNAL_STREAM": named})("cannot-listen") == ""
    assert prefixes(io.StringIO(), {"JOURNAL_STREAM": named})("cannot-listen") == ""


def test_a_line_in_the_journal_is_json_after_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = Log("auto", stream)
        log.event("ready", "serving")
        log.close()
    line = (tmp_path / "journal").read_text()
    assert line.startswith("<5>{")
    assert json.loads(line[3:])["event"] == "ready"
