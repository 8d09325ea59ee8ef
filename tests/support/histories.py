"""Ledgers with a past: batches of a daemon whose clocks a test turns."""

from __future__ import annotations

from pathlib import Path

from imds_proxy.ledger.entries import Alike, Batch, Moment, StableCaller, Watch
from imds_proxy.ledger.store import LedgerStore

DAY = 86400.0
START = 1_790_000_000.0  # Unix seconds, a full hour plus some
WATCH = Watch("upgrade", "enforce", "redirect", "1.0")
CURL = StableCaller("/usr/bin/curl", user="root", uid=0, unit="cron.service", cmdline="curl http://x/")


def at(seconds: float, boot: float = 1000.0) -> Moment:
    """That long after the start, on both clocks."""
    return Moment(START + seconds, boot + seconds)


def alike(caller: StableCaller = CURL, session: str = "legacy", **more: str) -> Alike:
    return Alike(caller, session, more.pop("path", "/latest/meta-data/mac"), "static", **more)


def batch(
    seconds: float,
    *sums: tuple[Alike, int],
    watch: Watch = WATCH,
    stopping: bool = False,
    boot: float = 1000.0,
) -> Batch:
    return Batch(at(seconds, boot), watch, sums, stopping)


def opened(
    path: Path, keep: float = 90 * DAY, size: int = 64 * 1024**2, boot: str = "boot-1", host: str = "web-1"
) -> LedgerStore:
    return LedgerStore(path, keep, size, host, boot)
