"""What the commands are given."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from histories import opened
from imds_proxy.config import ConfigErrors
from imds_proxy.ledger.sources import expand, is_ledger, ledger_path, opened_log


def test_a_ledger_is_told_from_a_log_by_its_first_bytes(tmp_path: Path) -> None:
    opened(tmp_path / "a").close()
    (tmp_path / "b").write_text("{}\n")
    (tmp_path / "c").write_bytes(b"")
    assert [is_ledger(tmp_path / name) for name in "abc"] == [True, False, False]


def test_directories_stand_for_their_files_but_not_for_what_is_beside_a_ledger(tmp_path: Path) -> None:
    for name in ("a.db", "a.db-wal", "a.db-shm", "sub/b.log", "a.db-journal"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in expand([tmp_path, tmp_path / "none"])] == ["a.db", "b.log", "none"]


def test_a_rotated_log_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"one\ntwo \xff\n"))
    with opened_log(tmp_path / "log.gz") as lines:
        assert list(lines) == ["one\n", "two \ufffd\n"]


def test_without_files_it_is_the_daemons_own_ledger(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {tmp_path}/state\n")
    assert ledger_path(config) == tmp_path / "state" / "ledger.db"
    config.write_text("ledger: {path: /elsewhere/l.db}\n")
    assert ledger_path(config) == Path("/elsewhere/l.db")
    config.write_text("ledger: {path: ../l.db}\n")
    with pytest.raises(ConfigErrors, match="below `state`"):
        ledger_path(config)
