"""`workers: N` in the shipped unit under a real systemd: for systemd there is the daemon, and no other."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from machine import wait_for
from unit_machine import UNIT, UnitMachine, unit_machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("systemctl") is None, reason="needs root and systemd"
    ),
]

CONFIG = {"workers": 2}
WATCHDOG = 3.0  # seconds; of the unit
HELPERS = {"imds-nursery": 1, "imds-worker": 2}


@pytest.fixture
def unit() -> Iterator[UnitMachine]:
    with unit_machine(CONFIG) as one:
        one.start()
        wait_for(lambda: is_whole(one), 10, "workers")
        yield one


def processes(unit: UnitMachine) -> dict[int, str]:
    """All processes of the unit's user, whichever cgroup they are in: names by numbers."""
    lines = unit.said("pgrep", "--uid", "imds-proxy", "--list-name").splitlines()
    return {int(pid): name for pid, name in (line.split(" ", 1) for line in lines)}


def is_whole(unit: UnitMachine) -> bool:
    """Whether the daemon lives, its nursery and all of its workers, and nothing else."""
    found = processes(unit)
    return found.pop(unit.machine.main_pid(UNIT), None) is not None and Counter(found.values()) == HELPERS


def workers(unit: UnitMachine) -> list[int]:
    return [pid for pid, name in processes(unit).items() if name == "imds-worker"]


def is_replaced(unit: UnitMachine, worker: int) -> bool:
    return is_whole(unit) and worker not in processes(unit)


def is_anew(unit: UnitMachine, before: dict[int, str]) -> bool:
    """Whether the unit is whole again, and nobody lives who lived before."""
    return is_whole(unit) and not before.keys() & processes(unit).keys()


def test_a_worker_that_is_killed_is_the_daemons_matter_and_no_death_of_the_unit(unit: UnitMachine) -> None:
    main = unit.machine.main_pid(UNIT)
    for _ in range(2):
        victim = workers(unit)[0]
        unit.machine.run("kill", "-KILL", str(victim))
        assert unit.ask() == "200"
        wait_for(partial(is_replaced, unit, victim), 5)
    time.sleep(WATCHDOG + 1)  # those that are there still have told the watchdog meanwhile
    assert unit.ask() == "200"
    assert unit.machine.main_pid(UNIT) == main
    assert unit.machine.show(UNIT, "NRestarts") == "0"
    assert unit.machine.show(UNIT, "StatusText").startswith("serving")


def test_a_reload_holds_for_workers_when_it_returns(unit: UnitMachine) -> None:
    before = processes(unit)
    assert [unit.ask() for _ in range(8)] == ["200"] * 8  # known by heart by then
    config = Path(f"/proc/{unit.machine.pid}/root/etc/imds-proxy/config.yaml")
    config.write_text(yaml.safe_dump({**CONFIG, "mode": "enforce"}))
    unit.machine.run("systemctl", "reload", UNIT)
    assert [unit.ask() for _ in range(8)] == ["403"] * 8
    assert processes(unit) == before


def test_a_stop_leaves_nobody_behind(unit: UnitMachine) -> None:
    began = time.monotonic()
    unit.machine.run("systemctl", "stop", UNIT)
    took = time.monotonic() - began
    assert processes(unit) == {}
    assert unit.machine.show(UNIT, "Result") == "success"
    assert took < 2  # nobody had to be killed
    assert unit.ask() == "403"  # the service itself


def test_when_all_are_killed_all_are_there_again(unit: UnitMachine) -> None:
    before = processes(unit)
    unit.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    wait_for(lambda: is_anew(unit, before), 10, "another run")
    assert unit.ask() == "200"
    assert unit.machine.show(UNIT, "NRestarts") == "1"


def test_workers_do_not_tell_the_watchdog_that_a_daemon_lives_which_hangs(unit: UnitMachine) -> None:
    before = processes(unit)
    unit.kill("STOP")
    wait_for(lambda: is_anew(unit, before), WATCHDOG + 7, "the watchdog")
    assert unit.ask() == "200"
    assert "Watchdog timeout" in unit.machine.journal(UNIT)
    assert unit.machine.show(UNIT, "NRestarts") == "1"
