"""A minute of load: 200 polling callers (issue 12, 1), and beside them a soak under chaos.

Both go on at the same time, before a service and a daemon of their own each.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos import VALUES, Callers, Chaos, Samples
from imds_proxy.demo.processes import announced, ending
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from places import within
from proxy import TTL_HEADER, Proxy, running_proxy
from turned import ROLE

POLLERS = Path(__file__).resolve().parent.parent / "support" / "pollers.py"
ITEMS = (
    "meta-data/instance-id",
    "meta-data/hostname",
    "meta-data/instance/spot/termination-time",  # 404: keep running
    "meta-data/network/interfaces/macs/",
    ROLE,
)
USERS = (6001, 6002, 6003, 6004)
CALLERS, EVERY, THROTTLE, SECONDS = 200, 1.0, "50/s", 60.0
DEFAULT_LIMITS = {"hits": "2000/s", "misses": "20/s burst 200", "upstream": "50/s burst 100"}


@dataclass(frozen=True)
class Service:
    """The emulator as a process of its own, so that it is not this one's load."""

    port: int
    control: tuple[str, int]

    def state(self, method: str = "GET", path: str = "/state") -> dict[str, Any]:
        connection = http.client.HTTPConnection(*self.control, timeout=5)
        try:
            connection.request(method, path)
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    words = ["emulate", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--throttle", THROTTLE]
    process = subprocess.Popen(
        [sys.executable, "-m", "imds_proxy", *words], stdout=subprocess.PIPE, text=True
    )
    with ending(process):
        port = int(announced(process).rpartition(":")[2])
        assert process.stdout is not None
        control = int(process.stdout.readline().rpartition(":")[2])
        yield Service(port, ("127.0.0.1", control))


@contextmanager
def polling(port: int, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """All callers, of four users."""
    words = [sys.executable, str(POLLERS), str(port)]
    of_each = [str(CALLERS // len(USERS)), str(seconds), str(EVERY), *ITEMS]
    processes = [
        subprocess.Popen([*words, str(uid), *of_each], stdout=subprocess.PIPE, text=True) for uid in USERS
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def heard(processes: list[subprocess.Popen[str]], patience: float) -> tuple[dict[str, Counter[str]], float]:
    """Statuses by item, and the slowest answer in seconds. Every call was answered."""
    statuses: dict[str, Counter[str]] = {item: Counter() for item in ITEMS}
    worst = 0.0
    for process in processes:
        found = json.loads(process.communicate(timeout=patience)[0])
        assert found["unanswered"] == 0
        worst = max(worst, found["worst"])
        for item, counts in found["statuses"].items():
            statuses[item].update(counts)
    return statuses, worst


@dataclass(frozen=True)
class Load:
    """The polling callers at work: which share of their calls was throttled without the proxy; with it."""

    throttled: float
    service: Service
    processes: list[subprocess.Popen[str]]


@pytest.fixture(scope="module")
def load(service: Service) -> Iterator[Load]:
    with polling(service.port, 5) as processes:
        direct, _ = heard(processes, 60)
    throttled = sum(counts["429"] for counts in direct.values())
    share = throttled / sum(sum(counts.values()) for counts in direct.values())
    service.state("POST", "/reset")
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(("127.0.0.1", service.port), {"limits": DEFAULT_LIMITS}))
        yield Load(share, service, stack.enter_context(polling(proxy.port, SECONDS)))


def tokens_of(proxy: Proxy, uid: int) -> set[str]:
    """Hashes of the tokens that another user is given."""
    code = (
        "import http.client, sys\n"
        "wire = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=5)\n"
        f"wire.request('PUT', '/latest/api/token', headers={{{TTL_HEADER!r}: '60'}})\n"
        "answer = wire.getresponse()\n"
        "body = answer.read().decode()\n"
        "wire.close()\n"
        "print(body if answer.status == 200 else '')\n"
    )
    words = within([sys.executable, "-c", code, str(proxy.port)], uid)
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, cwd="/", check=True)
    return {hashlib.sha256(line.encode()).hexdigest() for line in done.stdout.split()}


@pytest.mark.root
@pytest.mark.slow
def test_in_a_minute_of_chaos_nothing_that_must_hold_is_broken(load: Load) -> None:
    settings = {
        "limits": {**DEFAULT_LIMITS, "misses": "500/s"},  # all callers are one user: they contest the budget
        "upstream": {"read_timeout": "1s"},
        "cache": {"static": "1s", "slow": "1s", "volatile": "500ms", "missing": "500ms", "listing": "1s"},
    }
    emulator = Settings(http_tokens="required", extra_items=VALUES, credential_life=36, rotation_lead=3)
    with Emulator(settings=emulator) as service, running_proxy(service.address, settings) as proxy:
        until = time.monotonic() + SECONDS
        callers, samples, chaos = Callers(proxy, service, until), Samples(), Chaos(service, seed=12)

        async def soak() -> None:
            await asyncio.gather(callers.all(), samples.take(proxy, service, until))

        chaos.start()
        asyncio.run(soak())
        chaos.stop()
        end = time.monotonic() + 5  # and it comes back at once
        while proxy.get("/latest/meta-data/tags/instance/t0").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        others = tokens_of(proxy, USERS[0]) | tokens_of(proxy, USERS[1])
        assert proxy.stop() == 0
        internal = [event for event in proxy.log() if event.get("slug") == "internal"]
    findings = callers.findings
    sizes = [size / 2**20 for _, size, _ in samples.taken]
    over = samples.over(50, 100)
    print(
        f"{sum(chaos.done.values())} disturbances {dict(chaos.done)}; {sum(findings.heard.values())} answers "
        f"{dict(findings.statuses)}; {len(findings.wrong)} broken invariants; daemon {sizes[0]:.0f} to "
        f"{max(sizes):.0f} MiB; {samples.taken[-1][2]} calls reached the service, {over:.0f} over its budget"
    )
    assert findings.wrong == []
    assert internal == []
    assert len(findings.heard) == 10
    assert findings.statuses[200] > 1000
    assert max(sizes) <= 64
    assert max(sizes[-20:]) <= max(sizes[len(sizes) // 3 : len(sizes) // 2]) + 8
    # What meets a cut before its first byte is asked again: the service counts both, the budget one.
    assert over <= 32
    assert len(others) == 2
    assert not others & findings.tokens


@pytest.mark.slow
def test_of_200_polling_callers_one_call_in_a_hundred_reaches_the_service_and_none_is_throttled(
    load: Load,
) -> None:
    statuses, worst = heard(load.processes, SECONDS + 60)
    state = load.service.state()
    calls = sum(sum(counts.values()) for counts in statuses.values())
    upstream = state["token_puts"] + state["v1_gets"] + state["v2_gets"]
    print(
        f"without the proxy {load.throttled:.0%} of the calls were throttled; with it {calls} calls caused "
        f"{upstream} ({upstream / calls:.2%}), slowest {worst * 1000:.0f} ms"
    )
    assert load.throttled > 0.5
    assert calls >= 0.95 * CALLERS * len(ITEMS) * SECONDS
    assert upstream <= 0.01 * calls
    assert state["throttled"] == 0
    for item, counts in statuses.items():
        assert set(counts) == {"404" if item.endswith("termination-time") else "200"}
