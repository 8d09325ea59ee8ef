"""Redirected calls with workers, who take them while the redirect is up, and nothing that outlives it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from cloud import Lab
from crewed import is_alive, nursery_of, standing_still, until, workers_of

SETTINGS: dict[str, Any] = {"intercept": {"method": "nftables"}, "workers": 2}
ITEM = "/latest/meta-data/instance-id"
SERVED, REAL = 200, 403  # by the proxy; by the hardened-only service


def known_by_all(lab: Lab, pids: list[int]) -> None:
    for one in pids:
        with standing_still(*(pid for pid in pids if pid != one)):
            assert [lab.get(ITEM).status for _ in range(5)] == [SERVED] * 5


def test_redirected_calls_are_answered_by_workers_until_the_redirect_is_taken_down(lab: Lab) -> None:
    with lab.daemon("--intercept", settings=SETTINGS) as daemon:
        until(lambda: len(workers_of(daemon)) == 2)
        time.sleep(0.3)
        known_by_all(lab, workers_of(daemon))
        with standing_still(daemon.process.pid):
            assert lab.get(ITEM, "--max-time", "1").status == SERVED
        assert lab.intercept(daemon, "down").returncode == 0
        assert lab.get(ITEM).status == REAL
        assert lab.intercept(daemon, "up").returncode == 0
        assert [lab.get(ITEM).status for _ in range(5)] == [SERVED] * 5
        assert daemon.stop() == 0
        assert lab.get(ITEM).status == REAL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_death_opens_the_way_at_once_though_workers_lived(lab: Lab, number: signal.Signals) -> None:
    with lab.daemon("--intercept", settings=SETTINGS) as daemon:
        until(lambda: len(workers_of(daemon)) == 2)
        family = [nursery_of(daemon), *workers_of(daemon)]
        assert lab.get(ITEM).status == SERVED
        os.kill(daemon.process.pid, number)
        daemon.process.wait(10)
        assert lab.host.nft("list ruleset") == ""
        got = lab.get(ITEM)
        assert (got.status, got.seconds < 0.5) == (REAL, True)
        until(lambda: not any(is_alive(pid) for pid in family), 2)
