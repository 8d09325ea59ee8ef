"""What was done outlives the program that did it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imds_proxy.cutover.journal import DONE, SETTING, Journal


def test_the_last_state_of_each_instance_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path)
    assert first.state("i-a") is None
    first.note("i-a", SETTING)
    first.note("i-a", DONE)
    first.note("i-b", SETTING, "why")
    again = Journal(path)
    assert (again.state("i-a"), again.state("i-b"), again.state("i-c")) == (DONE, SETTING, None)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_is_a_step_to_take_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).note("i-a", SETTING)
    whole = path.read_bytes()
    Journal(path).note("i-a", DONE)
    path.write_bytes(path.read_bytes()[:-5])
    assert Journal(path).state("i-a") == SETTING
    path.write_bytes(whole)


@pytest.mark.parametrize("line", ["[]", "x", '{"instance": "i-a"}', '{"instance": "i-a", "state": "flying"}'])
def test_another_file_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal"
    Journal(path).note("i-a", DONE)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        Journal(path)


def test_without_a_file_it_lasts_as_long_as_the_program() -> None:
    journal = Journal(None)
    journal.note("i-a", DONE)
    assert journal.state("i-a") == DONE
