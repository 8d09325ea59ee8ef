"""What happens to calls when the daemon dies, hangs or is stopped (ATTACKS 31), without systemd."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

import pytest

from cloud import Heard, Lab
from proxy import Proxy

_SERVED, _REAL, _REFUSED = 200, 403, 0  # by the proxy; by the hardened-only service; by nobody


def outcome(got: Heard) -> int:
    assert got.status or got.exit_code == 7, f"neither an answer nor a refusal: {got}"
    return got.status


def until(lab: Lab, wanted: int, seconds: float) -> float:
    """Asks until the outcome is `wanted`; how long that took. A call that hangs for a second is no answer."""
    begun = time.monotonic()
    while True:
        got = lab.get("/latest/meta-data/instance-id", "--max-time", "1")
        passed = time.monotonic() - begun
        if got.status == wanted and (got.status or got.exit_code == 7):
            return passed
        assert passed < seconds, f"after {passed:.1f} s still {got}"


def intercept(**more: Any) -> dict[str, Any]:
    return {"intercept": {"method": "nftables", **more}, "cache": {"enabled": False}}


def gone(daemon: Proxy, number: signal.Signals) -> None:
    daemon.process.send_signal(number)
    daemon.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_open_a_death_opens_the_way_at_once_and_leaves_no_rule(lab: Lab, number: signal.Signals) -> None:
    with lab.daemon("--intercept", settings=intercept()) as daemon:
        assert outcome(lab.get()) == _SERVED
        gone(daemon, number)
        assert lab.host.nft("list ruleset") == ""
        got = lab.get()
        assert outcome(got) == _REAL
        assert got.seconds < 0.5


def test_open_a_hang_opens_the_way_within_2500_ms_and_an_end_of_it_closes_it_again(lab: Lab) -> None:
    with lab.daemon("--intercept", settings=intercept()) as daemon:
        assert outcome(lab.get()) == _SERVED
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            while outcome_or_hang(lab) != _REAL:
                assert time.monotonic() - stopped < 5
            # The last try may itself have waited; what counts is when a fresh connection gets through.
            assert time.monotonic() - stopped < 2.5
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        until(lab, _SERVED, 5)
        assert daemon.stop() == 0
        assert "redirect-lapsed" in {event["event"] for event in daemon.log()}


def outcome_or_hang(lab: Lab) -> int | None:
    got = lab.get("/latest/meta-data/instance-id", "--max-time", "0.1")
    return None if got.exit_code == 28 else got.status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_open_without_owner_tables_the_way_is_open_within_2500_ms(lab: Lab, number: signal.Signals) -> None:
    with lab.daemon("--intercept", settings=intercept(owner_table=False)) as daemon:
        assert outcome(lab.get()) == _SERVED
        daemon.process.send_signal(number)
        begun = time.monotonic()
        try:
            while outcome_or_hang(lab) != _REAL:
                assert time.monotonic() - begun < 5
            assert time.monotonic() - begun < 2.5
        finally:
            with suppress(ProcessLookupError):
                daemon.process.kill()
    lab.host.nft("flush ruleset")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_closed_after_a_death_calls_are_refused_at_once(lab: Lab, number: signal.Signals) -> None:
    before = lab.host.everything()
    with lab.daemon("--intercept", settings=intercept(on_failure="closed")) as daemon:
        assert outcome(lab.get()) == _SERVED
        gone(daemon, number)
        for pause in (0.0, 2.2):  # then the lease has lapsed as well
            time.sleep(pause)
            got = lab.get()
            assert outcome(got) == _REFUSED
            assert got.seconds < 0.5
        with lab.daemon("--intercept", settings=intercept(on_failure="closed")) as next_one:
            assert outcome(lab.get()) == _SERVED
            assert lab.intercept(next_one, "down").returncode == 0
    assert lab.host.everything() == before


def test_closed_a_hang_refuses_within_2500_ms_and_never_hangs_after(lab: Lab) -> None:
    with lab.daemon("--intercept", settings=intercept(on_failure="closed")) as daemon:
        assert outcome(lab.get()) == _SERVED
        daemon.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        try:
            while outcome_or_hang(lab) != _REFUSED:
                assert time.monotonic() - begun < 2.5
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        until(lab, _SERVED, 5)
        assert lab.intercept(daemon, "down").returncode == 0


def test_a_client_that_holds_a_token_goes_on_when_the_proxy_is_gone(lab: Lab) -> None:
    put = ("-X", "PUT", "-H", "X-aliyun-ecs-metadata-token-ttl-seconds: 60")
    with lab.daemon("--intercept", settings=intercept()) as daemon:
        token = lab.get("/latest/api/token", *put).body
        header = ("-H", f"X-aliyun-ecs-metadata-token: {token}")
        assert lab.get("/latest/meta-data/instance-id", *header).status == 200
        gone(daemon, signal.SIGKILL)
        assert lab.get("/latest/meta-data/instance-id", *header).status == 200


def test_what_another_tool_flushes_is_put_back_within_a_second(lab: Lab) -> None:
    with lab.daemon("--intercept", settings=intercept(on_failure="closed")) as daemon:
        lab.host.nft("flush ruleset")
        assert until(lab, _SERVED, 5) < 1.5
        assert lab.intercept(daemon, "status").returncode == 0
        assert lab.intercept(daemon, "down").returncode == 0
        assert daemon.stop() == 0
        assert "redirect-put-back" in {event["event"] for event in daemon.log()}


def test_the_address_of_a_killed_daemon_goes_by_itself(lab: Lab) -> None:
    with lab.daemon("--intercept", settings=intercept()) as daemon:
        gone(daemon, signal.SIGKILL)
        shown = lab.host.ip("addr show to 169.254.100.200")
        assert "valid_lft forever" not in shown
        assert int(shown.partition("valid_lft ")[2].partition("sec")[0]) <= 60


def slow(lab: Lab, seconds: float) -> None:
    """How long the service takes for an answer."""
    lab.cloud.run("curl", "-sSf", "-X", "PATCH", f"{lab.control}/state", "-d", f'{{"latency": {seconds}}}')


def asking(lab: Lab) -> subprocess.Popen[str]:
    """A call that is under way."""
    url = "http://100.100.100.200/latest/meta-data/zone-id"
    words = ("curl", "-sS", "--max-time", "8", "-w", " %{http_code} %{exitcode}", url)
    return subprocess.Popen(lab.host.words(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def under_way(lab: Lab) -> None:
    """Waits until the proxy has accepted a redirected call, and asked the service."""
    until = time.monotonic() + 10
    while "169.254.100.200:200" not in lab.host.run("ss", "-Htn", "state", "established"):
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)


@pytest.mark.parametrize("hung", [False, True])
def test_a_call_under_way_at_a_death_is_told_at_once(lab: Lab, hung: bool) -> None:
    """The table goes after the sockets do: else their end would not find its way to the caller."""
    with lab.daemon("--intercept", settings=intercept()) as daemon:
        assert outcome(lab.get()) == _SERVED
        slow(lab, 0.8)
        try:
            if hung:
                daemon.process.send_signal(signal.SIGSTOP)  # it waits in the listener's queue
            with asking(lab) as call:
                under_way(lab)
                daemon.process.kill()
                begun = time.monotonic()
                said, _ = call.communicate()
                assert time.monotonic() - begun < 2
                assert said.split()[-1] in ("52", "56"), said  # curl: an empty answer, or a reset
        finally:
            slow(lab, 0)


@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_a_call_under_way_at_a_stop_is_answered(lab: Lab, on_failure: str) -> None:
    with lab.daemon("--intercept", settings=intercept(on_failure=on_failure)) as daemon:
        assert outcome(lab.get()) == _SERVED
        slow(lab, 0.6)
        try:
            with asking(lab) as call:
                under_way(lab)
                daemon.process.terminate()
                said, errors = call.communicate()
                assert said.split()[-2:] == ["200", "0"], (said, errors)
        finally:
            slow(lab, 0)
        assert daemon.process.wait(10) == 0
        if on_failure == "open":
            assert lab.host.nft("list ruleset") == ""
        else:
            assert outcome(lab.get()) == _REFUSED
            lab.host.nft("flush ruleset")
