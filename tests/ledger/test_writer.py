"""The ledger's thread: whatever the disk does, callers do not notice, and what is lost is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from histories import alike, batch, opened
from imds_proxy.ledger.schema import open_to_read
from imds_proxy.ledger.store import LedgerStore
from imds_proxy.ledger.writer import LedgerWriter

Said = list[tuple[str, str]]


@contextmanager
def writing(
    path: Path, open_store: Callable[[], LedgerStore] | None = None
) -> Iterator[tuple[LedgerWriter, Said]]:
    said: Said = []
    writer = LedgerWriter(
        path, open_store or (lambda: opened(path)), lambda event, _, detail: said.append((event, detail))
    )
    try:
        yield writer, said
    finally:
        writer.close(10)


def total(path: Path) -> int:
    reading = open_to_read(path)
    try:
        return int(reading.execute("SELECT ifnull(sum(count), 0) FROM hours").fetchone()[0])
    finally:
        reading.close()


def test_what_is_handed_over_is_written_by_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with writing(path) as (writer, said):
        for second in range(100):
            writer.put(batch(second, (alike(), 1)))
    assert not path.with_name("ledger.db-wal").exists()
    assert total(path) == 100
    assert said == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"\0" * len(raw),
        lambda raw: b"not a database at all\n" * 400,
        lambda raw: raw[:4096] + os.urandom(len(raw) - 4096),
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:100],
    ],
    ids=["zeros", "text", "random pages", "cut in half", "a header only"],
)
def test_a_broken_file_is_moved_aside_and_another_begun(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "ledger.db"
    with writing(path) as (writer, _):
        writer.put(batch(0, (alike(), 5)))
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    with writing(path) as (writer, said):
        writer.put(batch(10, (alike(), 7)))
    assert [event for event, _ in said] == ["ledger-set-aside"]
    (aside,) = tmp_path.glob("ledger.db.broken-*")
    assert str(aside) in said[0][1]
    assert aside.read_bytes() == broken
    assert total(path) == 7


def test_a_file_that_breaks_while_it_is_written_is_moved_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with writing(path) as (writer, _):
        writer.put(batch(0, (alike(), 5)))
    damaged = False

    def open_store() -> LedgerStore:
        nonlocal damaged
        store = opened(path)
        if not damaged:
            damaged = True
            store._db.execute("PRAGMA shrink_memory")  # else its pages are in memory, and whole
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * (path.stat().st_size - 4096))
        return store

    with writing(path, open_store) as (writer, said):
        writer.put(batch(1, (alike(), 7)))
    assert [event for event, _ in said] == ["ledger-set-aside"]
    assert total(path) == 7


def test_only_the_latest_broken_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for day in range(10, 15):
        (tmp_path / f"ledger.db.broken-202601{day}T000000").write_text("old")
    path.write_bytes(b"broken" * 1000)
    with writing(path) as (writer, _):
        writer.put(batch(0, (alike(), 1)))
    kept = sorted(one.name for one in tmp_path.glob("ledger.db.broken-*"))
    assert len(kept) == 2
    assert kept[0] == "ledger.db.broken-20260114T000000"


def test_a_newer_ledger_is_kept_beside_the_one_of_this_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = opened(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with writing(path) as (writer, said):
        writer.put(batch(0, (alike(), 1)))
    assert said[0][0] == "ledger-set-aside"
    assert "schema version 99" in said[0][1]
    assert len(list(tmp_path.glob("ledger.db.newer-*"))) == 1
    assert total(path) == 1


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    subprocess.run(
        [
            "python3",
            "-c",
            f"import sqlite3; sqlite3.connect({str(path)!r}).execute('CREATE TABLE songs (a)')",
        ],
        check=True,
    )
    before = path.read_bytes()
    with writing(path) as (writer, said):
        writer.put(batch(0, (alike(), 1)))
        writer.put(batch(1, (alike(), 1)))
    assert [event for event, _ in said] == ["ledger-unwritten"]
    assert "another program's" in said[0][1]
    assert [one.name for one in tmp_path.iterdir()] == ["ledger.db"]
    assert path.read_bytes() == before


def test_a_directory_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with writing(tmp_path / "file" / "ledger.db") as (writer, said):
        for second in range(5):
            writer.put(batch(second, (alike(), 1)))
    assert [event for event, _ in said] == ["ledger-unwritten"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_on_a_full_disk_counts_are_held_and_written_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    with writing(path) as (writer, said):
        writer.put(batch(0, (alike(), 1)))
        while not path.exists():
            pass
        writer.put(batch(1, (alike(), 1)))
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(b"x" * 4096)
        second = 2
        while not said:  # until a page more is needed
            while writer._entries.qsize() > 5 and not said:
                pass
            writer.put(batch(second, (alike(path=f"/latest/{second}/{'x' * 900}"), 1)))
            second += 1
        assert said[0][0] == "ledger-unwritten"
        assert "full" in said[0][1] or "I/O" in said[0][1]
        filler.unlink()
        writer.put(batch(second, (alike(), 1)))
        writer.close(10)
    assert said[-1][0] == "ledger-recovered"
    assert total(path) == second + 1


def test_what_no_longer_fits_into_memory_is_a_loss_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    failing = True

    def open_store() -> LedgerStore:
        if failing:
            raise OSError(28, "no space")
        return opened(path)

    with writing(path, open_store) as (writer, said):
        for second in range(3000):
            writer.put(batch(second, (alike(), 1)))
            while writer._entries.qsize() > 100:
                pass
        failing = False
        writer.put(batch(3000, (alike(), 1)))
    assert [event for event, _ in said] == ["ledger-unwritten", "ledger-recovered"]
    reading = open_to_read(path)
    begin, end, lost = reading.execute("SELECT min(begin), max(end), sum(count) FROM losses").fetchone()
    reading.close()
    assert lost + total(path) == 3001
    assert begin == batch(0).at.wall
    assert end < batch(3000).at.wall
