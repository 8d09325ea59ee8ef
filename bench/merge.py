#!/usr/bin/env python3
"""How long `imds-proxy report` takes to merge the ledgers of a fleet, and how much memory.

Makes the ledgers first (that is not measured), by the daemon's own code. Prints one line for each fleet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from imds_proxy.ledger.entries import Alike, Batch, Described, Moment, StableCaller, Watch
from imds_proxy.ledger.store import LedgerStore

START = 1_790_000_000.0
HOURS = 12
WATCH = Watch("upgrade", "enforce", "redirect", "1.0")


@dataclass(frozen=True)
class Merged:
    """One run: how many callers it gave, wall and CPU seconds, peak memory in MiB, size of all ledgers in
    MiB."""

    callers: int
    seconds: float
    cpu: float
    memory: float
    size: float


def fleet(directory: Path, ledgers: int, callers: int, distinct: float) -> None:
    """Writes the ledgers; of each one's callers the share `distinct` is found on no other host."""
    first = directory / "host-0000.db"
    who = [_caller(number) for number in range(callers)]
    store = LedgerStore(first, 90 * 86400.0, 256 * 1024**2, "host-0000", "boot")
    store.write(list(_entries(who)))
    store.close()
    own = who[: int(callers * distinct)]
    for number in range(1, ledgers):
        host = f"host-{number:04}"
        shutil.copyfile(first, directory / f"{host}.db")
        with closing(sqlite3.connect(directory / f"{host}.db")) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("UPDATE meta SET value = ? WHERE key = 'host'", (host,))
            moved = [replace(one, script=f"/srv/{host}{one.script}") for one in own]
            db.executemany(
                "UPDATE callers SET script = ?, key = ? WHERE key = ?",
                [(new.script, new.key, old.key) for new, old in zip(moved, own, strict=True)],
            )
            db.commit()


def _caller(number: int) -> StableCaller:
    return StableCaller(
        exe="/usr/bin/python3",
        script=f"/srv/app-{number}/main.py",
        user=f"app{number // 200}",
        uid=1000 + number // 200,
        unit=f"app-{number}.service",
        cmdline=f"python3 main.py --shard {number}",
    )


def _entries(who: list[StableCaller]) -> Iterator[Batch | Described]:
    for hour in range(HOURS):
        sums = [
            (Alike(one, session, f"/latest/meta-data/{item}", "slow", agent="Python-urllib/3.11"), 1 + hour)
            for number, one in enumerate(who)
            for session, item in _calls(number)
        ]
        yield Batch(Moment(START + hour * 3600, 1000.0 + hour * 3600), WATCH, sums)
    client = {"name": "alibabacloud-credentials", "version": "0.3.2", "where": "/srv/venv"}
    for one in who[: len(who) // 2]:
        yield Described(one.key, client, (), f"in {one.script}: upgrade to 1.0.2", "upgrade to 1.0.2", True)


def _calls(number: int) -> Iterator[tuple[str, str]]:
    session = "legacy" if number % 3 else "hardened"
    yield session, "ram/security-credentials/role"
    yield session, "instance-id"


def merge(directory: Path) -> Merged:
    """`imds-proxy report --json` over the directory, in a process of its own."""
    size = sum(path.stat().st_size for path in directory.iterdir()) / 2**20
    with tempfile.TemporaryFile("w+") as out:
        begin = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "imds_proxy", "report", "--json", str(directory)], stdout=out
        )
        memory = _watched(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"report exited with {child.returncode}")
        out.seek(0)
        callers = sum(line.startswith("    {") and '"sessions"' in line for line in out)
    cpu = usage.ru_utime + usage.ru_stime
    return Merged(callers, seconds, cpu, memory, size)


def _watched(pid: int) -> float:
    """The most memory (MiB) that a child had resident until it ended. Not ru_maxrss: that begins with what
    its parent had."""
    most = 0.0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        status = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            most = int(found[1]) / 1024
        time.sleep(0.02)
    return most


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledgers", type=int, default=1000, metavar="N")
    parser.add_argument("--callers", type=int, default=1000, metavar="N", help="of each ledger")
    parser.add_argument(
        "--distinct",
        type=float,
        nargs="*",
        default=(0.0, 0.5, 1.0),
        metavar="SHARE",
        help="of callers that are found on one host only (default: 0 0.5 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    rows = []
    for distinct in arguments.distinct:
        directory = Path(tempfile.mkdtemp(prefix="imds-proxy-fleet-"))
        try:
            fleet(directory, arguments.ledgers, arguments.callers, distinct)
            found = merge(directory)
        finally:
            shutil.rmtree(directory)
        print(
            f"{arguments.ledgers} ledgers of {arguments.callers} callers ({found.size:.0f} MiB), "
            f"{distinct:.0%} of them on one host only: {found.callers} callers, "
            f"{found.seconds:.1f} s ({found.cpu:.1f} s of CPU), {found.memory:.0f} MiB",
            flush=True,
        )
        rows.append(
            {
                "distinct": distinct,
                "callers": found.callers,
                "seconds": round(found.seconds, 2),
                "cpu_seconds": round(found.cpu, 2),
                "mebibytes": round(found.memory, 1),
            }
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
