"""Rates over real sockets: one greedy caller, twenty polite ones, and an upstream that throttles."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from imds_proxy.demo.processes import ending
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from places import within
from proxy import TTL_HEADER, Proxy, ask, running_proxy
from quiet import is_quiet

DEFAULTS = {"hits": "2000/s burst 4000", "misses": "20/s burst 200", "upstream": "50/s burst 100"}
MAC = "/latest/meta-data/mac"
# Ever new paths, so that nothing is shared, over 8 connections; it does not wait for answers.
GREEDY = """
import sys
port, seconds = int(sys.argv[1]), float(sys.argv[2])
import time
print("ready", flush=True)
sys.stdin.readline()
end, sent = time.monotonic() + seconds, [0] * 8
def flood(lane):
    wire = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=drain, args=(wire,), daemon=True).start()
    while time.monotonic() < end:
        paths = (f"/latest/meta-data/x{lane}-{sent[lane] + n}" for n in range(50))
        heads = (f"GET {path} HTTP/1.1\\r\\nHost: 100.100.100.200\\r\\n\\r\\n" for path in paths)
        try:
            wire.sendall("".join(heads).encode())
        except OSError:
            return
        sent[lane] += 50
        time.sleep(50 * 8 / 10_000)
def drain(wire):
    try:
        while wire.recv(1 << 16):
            pass
    except OSError:
        pass
lanes = [threading.Thread(target=flood, args=(lane,)) for lane in range(8)]
[lane.start() for lane in lanes]
[lane.join() for lane in lanes]
print(sum(sent), flush=True)
os._exit(0)
"""
# One request a second, each on a connection of its own, for an item of its own; prints how long each took.
# Twenty begin one after the other: at one moment, their own work on the cores they share is what is measured.
POLITE = """
import http.client, sys, time, encodings.idna
port, seconds, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
time.sleep(int(name) / 20)
for number in range(seconds):
    start = time.monotonic()
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    wire.request("GET", f"/latest/meta-data/polite-{name}-{number}")
    answer = wire.getresponse()
    answer.read()
    print(answer.status, time.monotonic() - start, flush=True)
    wire.close()
    time.sleep(max(0, start + 1 - time.monotonic()))
"""


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(settings=Settings(http_tokens="required")) as emulator:
        yield emulator


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: callers of 21 users")
def test_twenty_polite_callers_do_not_notice_a_greedy_one(service: Emulator) -> None:
    """Must show: 10,000 requests/s of one, 1/s of each of 20, a budget of 50/s with a burst of 100."""
    seconds = 8
    quiet = is_quiet()
    with running_proxy(service.address, {"limits": DEFAULTS}) as proxy, ExitStack() as running:
        running.enter_context(apart(proxy))
        assert proxy.get(MAC).status == 200
        time.sleep(0.3)  # the probe at the start

        def start(uid: int, code: str, *words: object) -> subprocess.Popen[str]:
            program = [
                sys.executable,
                "-c",
                f"import os, socket, threading, encodings.idna, http.client\n{_as(uid)}\n{code}",
            ]
            process = subprocess.Popen(
                [*program, str(proxy.port), *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            running.enter_context(ending(process))
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"  # the start of 21 interpreters is not the test's
            return process

        greedy = start(5000, GREEDY, seconds + 1)
        polite = [start(5001 + number, POLITE, seconds, number) for number in range(20)]
        before, began = service.counters(), time.monotonic()
        for one in (greedy, *polite):
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        answers = [line.split() for one in polite for line in one.communicate(timeout=60)[0].splitlines()]
        asked = int(greedy.communicate(timeout=60)[0])
        elapsed = time.monotonic() - began
        after = service.counters()
    took = [float(duration) for _, duration in answers]
    upstream = after.v2_gets + after.v1_gets + after.token_puts
    upstream -= before.v2_gets + before.v1_gets + before.token_puts
    print(f"greedy {asked / elapsed:.0f}/s; polite: median {statistics.median(took) * 1000:.1f} ms, ", end="")
    print(f"worst {max(took) * 1000:.1f} ms; upstream {upstream} calls in {elapsed:.1f} s")
    assert len(answers) == 20 * seconds
    assert {status for status, _ in answers} == {"404"}, "each was answered by the service itself"
    assert asked >= 0.8 * 10_000 * seconds
    assert max(took) < (0.1 if quiet and is_quiet() else 1.0)
    assert upstream <= 50 * elapsed + 100


@contextmanager
def apart(proxy: Proxy) -> Iterator[None]:
    """The proxy on one core, the service and all callers on the others: its own delay is what counts."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield
        return
    mine = {min(cores)}
    for thread in Path(f"/proc/{proxy.process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), mine)
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    try:
        for thread_id in threads:
            os.sched_setaffinity(thread_id, cores - mine)
        yield
    finally:
        for thread_id in threads:
            with suppress(OSError):
                os.sched_setaffinity(thread_id, cores)


def _as(uid: int) -> str:
    return f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})"


def test_a_cold_crawl_of_46_items_passes(service: Emulator) -> None:
    with running_proxy(service.address, {"limits": DEFAULTS}) as proxy:
        wire = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)
        statuses = set()
        for number in range(46):
            wire.request("GET", f"/latest/meta-data/crawl/{number}")
            response = wire.getresponse()
            response.read()
            statuses.add(response.status)
        wire.close()
    assert statuses == {404}


def test_over_its_limit_a_caller_hears_429_and_when_to_come_back(service: Emulator) -> None:
    with running_proxy(service.address, {"limits": {"hits": "1/m burst 2"}}) as proxy:
        assert [proxy.get(MAC).status for _ in range(2)] == [200, 200]
        refused = proxy.get(MAC)
        assert (refused.status, refused.headers["x-imds-proxy"]) == (429, "rate")
        assert 50 <= int(refused.headers["retry-after"]) <= 60


def test_a_put_is_delayed_and_never_refused_for_its_rate(service: Emulator) -> None:
    with running_proxy(service.address, {"limits": {"hits": "1/h burst 1"}}) as proxy:
        assert proxy.get(MAC).status == 200
        start = time.monotonic()
        assert proxy.put_token(600).status == 200
        assert 0.3 < time.monotonic() - start < 1


def test_when_the_service_throttles_callers_wait_instead_of_hearing_of_it(service: Emulator) -> None:
    """The proxy's budget is twice what the service allows: it learns, and no caller sees a 429."""
    service.patch(throttle=25, throttle_burst=5)
    statuses: list[int] = []
    with running_proxy(service.address, {"limits": {"upstream": "50/s burst 10"}}) as proxy:

        def poll(number: int) -> None:
            for turn in range(6):
                statuses.append(proxy.get(f"/latest/meta-data/t{number}-{turn}").status)
                time.sleep(0.4)

        threads = [threading.Thread(target=poll, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert service.counters().throttled > 0, "the service had to throttle: else nothing is shown"
    assert set(statuses) == {404}


def test_a_rate_of_a_rule_is_for_each_of_its_callers(service: Emulator) -> None:
    rules = [{"name": "slow", "paths": ["meta-data/mac"], "rate": "1/m burst 1"}]
    with running_proxy(service.address, {"policy": {"rules": rules}}) as proxy:
        assert [proxy.get(MAC).status for _ in range(2)] == [200, 429]
        assert proxy.get("/latest/meta-data/instance-id").status == 200
        if os.geteuid() == 0:
            words = within(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"], 4321)
            url = f"http://127.0.0.1:{proxy.port}{MAC}"
            done = subprocess.run([*words, url], capture_output=True, text=True, timeout=20, cwd="/")
            assert done.stdout == "200"


def test_a_passthrough_proxy_holds_nobody_back(service: Emulator) -> None:
    settings = {"mode": "passthrough", "limits": {"hits": "1/h burst 1", "upstream": "1/h burst 1"}}
    service.patch(http_tokens="optional")
    with running_proxy(service.address, settings) as proxy:
        assert [ask(proxy.host, proxy.port, "GET", MAC).status for _ in range(5)] == [200] * 5
        put = ask(proxy.host, proxy.port, "PUT", "/latest/api/token", {TTL_HEADER: "60"})
        assert put.status == 200
