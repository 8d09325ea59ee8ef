"""The fault lab: each way in which the service fails, crossed with each way in which callers behave.

In each cell three items are asked for: one that nobody asked for before, one that was fixed and is beyond its
time, and credentials that are kept.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from behaviours import BEHAVIOURS, Heard, patient
from imds_proxy.emulator.credentials import timestamp
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy, running_proxy
from proxy import ask as ask_service
from turned import ROLE

Outcomes = frozenset[tuple[int, str]]
FRESH, STALE = frozenset({(200, "")}), frozenset({(200, "stale")})
BROKEN, LATE = frozenset({(502, "upstream-broken")}), frozenset({(503, "deadline")})
TOKENLESS = frozenset({(503, "token-rejected"), (503, "token-unavailable")})
SHORT = {"static": "100ms", "volatile": "100ms", "missing": "100ms", "listing": "100ms"}
HOUR = 3600.0
FIRST = "meta-data/tags/instance/first"


@contextmanager
def patched(service: Emulator, **settings: object) -> Iterator[None]:
    service.patch(settings)
    yield
    service.patch(dict.fromkeys(settings))


@contextmanager
def accepting_none(service: Emulator) -> Iterator[None]:
    with patched(service, fault="no_accept"):
        service.reset_connections()
        yield


@contextmanager
def throttling(service: Emulator) -> Iterator[None]:
    with patched(service, throttle=1e-6, throttle_burst=1):
        ask_service(*service.address, "GET", "/latest/")  # the one that is let through
        yield


@contextmanager
def revoking(service: Emulator) -> Iterator[None]:
    """No token lives longer than 50 ms."""
    over = threading.Event()

    def revoke() -> None:
        while not over.wait(0.05):
            service.revoke_tokens()

    storm = threading.Thread(target=revoke)
    storm.start()
    yield
    over.set()
    storm.join()


@dataclass(frozen=True)
class Fault:
    """How it is made, and what is heard of an item that nobody asked for before, and of a fixed one.
    `heard`: the proxy learns of it by one answer of the service first."""

    made: Callable[[Emulator], Any]
    new: Outcomes
    fixed: Outcomes
    heard: bool = False
    limits: tuple[tuple[str, str], ...] = ()


def fault(kind: str, new: Outcomes, fixed: Outcomes = STALE) -> Fault:
    return Fault(lambda service: patched(service, fault=kind), new, fixed)


DEFAULT_BUDGET = (("upstream", "50/s burst 100"),)
FAULTS: dict[str, Fault] = {
    "none": Fault(lambda service: patched(service, latency=0), FRESH, FRESH),
    "latency, spread": Fault(
        lambda service: patched(service, latency=0.02, latency_spread=0.15), FRESH, FRESH | STALE
    ),
    "latency, a tail": Fault(
        lambda service: patched(service, latency=0.02, tail_latency=3, tail_rate=0.3),
        FRESH | LATE,
        FRESH | STALE,
    ),
    "latency, too long": Fault(lambda service: patched(service, latency=3), LATE, STALE),
    "reset": fault("reset", BROKEN),
    "reset in the body": fault("reset_mid_body", BROKEN),
    "half a body": fault("half_body", BROKEN),
    "slow drip": fault("drip", LATE),
    "garbage head": fault("garbage", BROKEN),
    "hang": fault("hang", LATE),
    "hanging accept": Fault(accepting_none, LATE, STALE),
    "closed after each": fault("close_each", FRESH, FRESH),
    "chunked": fault("chunked", FRESH, FRESH),
    "throttled (429)": Fault(
        throttling,
        frozenset({(429, ""), (429, "busy"), (503, "deadline"), (503, "token-unavailable")}),
        STALE,
        limits=DEFAULT_BUDGET,
    ),
    "overloaded (503)": Fault(
        lambda service: patched(service, get_status=503),
        frozenset({(503, ""), (429, "busy")}),
        STALE,
        limits=DEFAULT_BUDGET,
    ),
    "failing (500)": Fault(lambda service: patched(service, get_status=500), frozenset({(500, "")}), STALE),
    "tokens revoked": Fault(revoking, FRESH | LATE | TOKENLESS, FRESH | STALE),
    "clock 7 h on": Fault(lambda service: patched(service, clock_offset=7 * HOUR), FRESH, FRESH, heard=True),
    "clock 3 h back": Fault(
        lambda service: patched(service, clock_offset=-3 * HOUR), FRESH, FRESH, heard=True
    ),
}


def new(behaviour: str) -> str:
    return f"meta-data/tags/instance/new-{behaviour.replace(' ', '-')}"


def fixed(behaviour: str) -> str:
    return f"meta-data/image/fixed-{behaviour.replace(' ', '-')}"


def value(item: str) -> str:
    """Large enough that half of it is not the whole, and that one write does not hold it."""
    return f"value of {item} " * 2000


VALUES = {item: value(item) for behaviour in BEHAVIOURS for item in (new(behaviour), fixed(behaviour))}


def ask(proxy: Proxy, *paths: str) -> list[tuple[int, str]]:
    return [heard.outcome for heard in asyncio.run(patient(proxy.port, paths))]


def ask_until_fresh(proxy: Proxy, *paths: str) -> None:
    """Within seconds, on a machine that may be busy."""
    end = time.monotonic() + 10
    while set(heard := ask(proxy, *paths)) != {(200, "")}:
        assert time.monotonic() < end, heard
        time.sleep(0.05)


@dataclass(frozen=True)
class Seen:
    """What each kind of caller heard of its three items, or why it heard nothing; and the service's time."""

    fault: Fault
    heard: dict[str, list[Heard] | BaseException]
    now: float


async def all_at_once(port: int) -> dict[str, list[Heard] | BaseException]:
    calls = (
        asyncio.wait_for(behave(port, (new(name), fixed(name), ROLE)), 10)
        for name, behave in BEHAVIOURS.items()
    )
    found = await asyncio.gather(*calls, return_exceptions=True)
    return dict(zip(BEHAVIOURS, found, strict=True))


@pytest.fixture(scope="module", params=FAULTS)
def seen(request: pytest.FixtureRequest) -> Seen:
    """A service with this fault, a daemon of its own before it that knew better times, and all callers."""
    fault = FAULTS[request.param]
    settings: dict[str, Any] = {
        "cache": SHORT,
        "upstream": {"read_timeout": "1s"},
        "limits": dict(fault.limits),
    }
    emulator = Settings(http_tokens="required", extra_items={**VALUES, FIRST: "1"})
    with Emulator(emulator) as service, running_proxy(service.address, settings) as proxy:
        ask_until_fresh(proxy, ROLE, *(fixed(behaviour) for behaviour in BEHAVIOURS))
        assert proxy.put_token(600).status == 200
        until = time.monotonic() + 0.15  # the fixed ones are beyond their time then
        with fault.made(service):
            if fault.heard:
                ask_until_fresh(proxy, FIRST)
            while time.monotonic() < until:
                time.sleep(0.01)
            heard, now = asyncio.run(all_at_once(proxy.port)), service.service.now()
        ask_until_fresh(proxy, "meta-data/tags/instance/env", fixed("patient"))  # it comes back
        assert proxy.stop() == 0
        assert not [event for event in proxy.log() if event.get("slug") == "internal"]
    return Seen(fault, heard, now)


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_each_fault_has_its_outcome_for_each_behaviour(seen: Seen, behaviour: str) -> None:
    heard = seen.heard[behaviour]
    assert isinstance(heard, list), f"unanswered: {heard!r}"
    of_new, of_fixed, of_role = heard
    assert of_new.outcome in seen.fault.new
    assert of_fixed.outcome in seen.fault.fixed
    assert of_role.outcome == (200, "")
    if behaviour != "HEAD":
        for one, item in ((of_new, new(behaviour)), (of_fixed, fixed(behaviour))):
            assert (one.status == 200) == (one.body == VALUES[item].encode()), "another item's answer"
        assert json.loads(of_role.body)["Expiration"] > timestamp(seen.now), "credentials past their end"
