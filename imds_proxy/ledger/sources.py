"""What `report` and `ready` are given: ledgers, logs (also gzipped), directories of them, or nothing.

Finds and opens files; knows nothing of what is in them beyond their first bytes.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from imds_proxy.config import load_or_default

_SQLITE, _GZIP = b"SQLite format 3\0", b"\x1f\x8b"
_COMPANIONS = ("-wal", "-shm", "-journal")


def ledger_path(config: Path | None) -> Path:
    """The ledger of this machine's daemon. Raises ConfigErrors."""
    chosen = load_or_default(config)
    return chosen.ledger.below(chosen.state)


def expand(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and those in directories: what stands beside a ledger is not one. Raises OSError."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file() and not _is_companion(one))
        else:
            yield path


def is_ledger(path: Path) -> bool:
    """Whether it is a database, by its first bytes. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


@contextmanager
def opened_log(path: Path) -> Iterator[TextIO]:
    """The lines of a log, unpacked where it is gzipped. Raises OSError, EOFError."""
    with path.open("rb") as raw:
        packed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        with io.TextIOWrapper(file, encoding="utf-8", errors="replace") as lines:
            yield lines


def _is_companion(path: Path) -> bool:
    return path.name.endswith(_COMPANIONS)
