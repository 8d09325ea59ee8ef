"""The shipped unit under a real systemd: what callers notice of crashes, stops and hangs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from machine import wait_for
from unit_machine import UNIT, UnitMachine, unit_machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("systemctl") is None, reason="needs root and systemd"
    ),
]

RATE = 200
KILLS = 20
# Five starts in ten seconds are the unit's limit.
PAUSE = 10 / 5 + 0.1
DIRECT = "127.0.0.1:8100"


@dataclass
class Load:
    """What came of each request: the caller's port, seconds, outcome."""

    requests: list[tuple[int, float, str]] = field(default_factory=list)

    @property
    def failed(self) -> list[tuple[int, float, str]]:
        return [one for one in self.requests if one[2] != "200"]


@contextmanager
def steady(unit: UnitMachine, address: str, *more: str) -> Iterator[Load]:
    """RATE requests a second from the machine to an address, each on a connection of its own."""
    host, _, port = address.rpartition(":")
    words = unit.python("/opt/support/steady_load.py", host, port, str(RATE), *more)
    load = Load()
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=said):
            wait_for(lambda: os.fstat(said.fileno()).st_size > 0)
            yield load
        said.seek(0)
        for line in said:
            own, took, outcome, _ = line.split()
            load.requests.append((int(own), float(took), outcome))


def kill_counted(unit: UnitMachine, pid: int) -> set[int]:
    """SIGKILL; the ports of callers whose connections the process had accepted by then."""
    words = unit.python("/opt/support/kill_counted.py", str(pid))
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr + unit.machine.journal(UNIT)[-2000:]
    return {int(port) for port in done.stdout.split()}


def has_restarted(unit: UnitMachine, before: int) -> bool:
    return unit.machine.main_pid(UNIT) not in (0, before) and unit.serving()


def test_two_hundred_requests_a_second_do_not_notice_twenty_kills() -> None:
    with unit_machine({}) as unit:
        unit.start()
        assert unit.curl(DIRECT) == "200"
        accepted: set[int] = set()
        with steady(unit, DIRECT) as load:
            for _ in range(KILLS):
                again = time.monotonic() + PAUSE
                pid = unit.machine.main_pid(UNIT)
                accepted |= kill_counted(unit, pid)
                wait_for(partial(has_restarted, unit, pid))
                time.sleep(max(0.0, again - time.monotonic()))
        slowest = max(took for _, took, _ in load.requests)
        lost = {port for port, _, _ in load.failed}
        print(
            f"{len(load.requests)} requests, {KILLS} kills, {len(lost)} lost of {len(accepted)} accepted,",
            end="",
        )
        print(f" slowest {slowest * 1000:.0f} ms")
        assert int(unit.machine.show(UNIT, "NRestarts")) == KILLS
        assert len(load.requests) >= 0.9 * RATE * KILLS * PAUSE
        assert lost <= accepted
        assert slowest < 1.0
