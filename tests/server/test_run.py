"""The daemon's life: ready, drain, restart, death; and what its callers notice of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import TOKEN_HEADER, Reply, ask, running_proxy

MAC = "/latest/meta-data/mac"


@pytest.fixture
def hardened() -> Iterator[Emulator]:
    """A service that accepts hardened mode only."""
    emulator = Emulator(settings=Settings(http_tokens="required"))
    emulator.start()
    yield emulator
    emulator.stop()


def test_a_plain_get_is_upgraded(hardened: Emulator) -> None:
    with running_proxy(hardened.address) as proxy:
        direct = ask_directly(hardened, MAC)
        assert direct.status == 403
        assert proxy.get(MAC).status == 200
        assert hardened.counters().v1_gets == 1  # the direct one


def test_sigterm_answers_what_was_asked_and_accepts_nothing_new(hardened: Emulator) -> None:
    with running_proxy(hardened.address) as proxy:
        assert proxy.get(MAC).status == 200
        hardened.patch(latency=0.4)
        replies: list[int] = []
        # An item that nothing else asks for: the probe of made-up tokens counts as a GET, too.
        path = "/latest/meta-data/hostname"
        asking = threading.Thread(target=lambda: replies.append(proxy.get(path).status))
        asking.start()
        wait_for(lambda: path in hardened.counters().by_path)
        started = time.monotonic()
        assert proxy.stop() == 0
        asking.join(5)
        assert replies == [200]
        assert time.monotonic() - started < 3
        with pytest.raises(OSError):
            socket.create_connection((proxy.host, proxy.port), 1)


def test_without_uvloop_the_daemon_serves_and_says_so(
    hardened: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('not installed')\n")
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{before}" if before else str(tmp_path))
    with running_proxy(hardened.address) as proxy:
        assert proxy.get(MAC).status == 200
        token = proxy.put_token(60).body.decode()
        assert proxy.get(MAC, token).status == 200
        refused = proxy.request("TRACE", MAC)
        assert (refused.status, refused.headers["connection"]) == (405, "close")
        assert proxy.stop() == 0
        events = [line["event"] for line in proxy.log()]
    assert "no-uvloop" in events
    assert events[-1] == "stopped"


def test_what_lay_unread_when_sigterm_came_is_answered(hardened: Emulator) -> None:
    request = b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"
    with running_proxy(hardened.address) as proxy:
        assert proxy.get(MAC).status == 200
        held = [socket.create_connection((proxy.host, proxy.port)) for _ in range(20)]
        proxy.process.send_signal(signal.SIGSTOP)
        held += [socket.create_connection((proxy.host, proxy.port)) for _ in range(20)]  # not yet accepted
        for one in held:
            one.sendall(request)
        proxy.process.terminate()
        proxy.process.send_signal(signal.SIGCONT)
        for one in held:
            with one, one.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert proxy.process.wait(10) == 0


def test_idle_connections_do_not_hold_up_the_drain(hardened: Emulator) -> None:
    with running_proxy(hardened.address) as proxy:
        held = [socket.create_connection((proxy.host, proxy.port)) for _ in range(20)]
        assert proxy.get(MAC).status == 200
        started = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - started < 2
        for one in held:
            one.close()


def test_a_busy_port_is_said_and_the_exit_code_is_1(hardened: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "imds_proxy", "run", "--listen", f"127.0.0.1:{port}"),
                *("--upstream", "127.0.0.1:1"),
            ],
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_holds_a_token_goes_on_without_the_proxy_and_when_it_comes_back(
    hardened: Emulator, tmp_path: Path, end: signal.Signals
) -> None:
    with running_proxy(hardened.address, state=tmp_path) as proxy:
        token = proxy.put_token(21600).body.decode()
        assert proxy.get(MAC, token).status == 200
        # The hash reaches the disk within a second; after SIGKILL before that the service itself knows it.
        proxy.process.send_signal(end)
        proxy.process.wait(10)
    assert ask_directly(hardened, MAC, {TOKEN_HEADER: token}).status == 200
    with running_proxy(hardened.address, state=tmp_path) as proxy:
        assert proxy.get(MAC, token).status == 200
        assert proxy.put_token(21600).status == 200


def test_sealed_tokens_survive_a_restart_and_cost_no_call_upstream(
    hardened: Emulator, tmp_path: Path
) -> None:
    with running_proxy(hardened.address, {"tokens": "sealed"}, state=tmp_path) as proxy:
        assert proxy.get(MAC).status == 200
        token = proxy.put_token(60).body.decode()
        puts = hardened.counters().token_puts
        assert proxy.put_token(60).status == 200
        assert hardened.counters().token_puts == puts
    with running_proxy(hardened.address, {"tokens": "sealed"}, state=tmp_path) as proxy:
        assert proxy.get(MAC, token).status == 200


@pytest.mark.parametrize("tokens", ["real", "sealed"])
def test_state_that_cannot_be_written_is_said_and_lived_without(hardened: Emulator, tokens: str) -> None:
    with running_proxy(hardened.address, {"state": "/proc/nowhere", "tokens": tokens}) as proxy:
        token = proxy.put_token(60).body.decode()
        assert proxy.get(MAC, token).status == 200
        assert "state-unusable" in [line["event"] for line in proxy.log()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("this machine allows no mounts")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.root
def test_a_full_disk_is_said_once_and_costs_no_caller(hardened: Emulator, small_disk: Path) -> None:
    with running_proxy(hardened.address, state=small_disk) as proxy:
        wait_for((small_disk / "tokens.jsonl").exists)
        # Other files first, then what is left of the hashes' own block.
        for name in ("filler", "tokens.jsonl"):
            with contextlib.suppress(OSError), (small_disk / name).open("ab", buffering=0) as file:
                while file.write(b"\n" * 1024):
                    pass
        tokens = []
        for ttl in (60, 70, 80):
            tokens.append(proxy.put_token(ttl).body.decode())
            time.sleep(1.1)
        assert [proxy.get(MAC, token).status for token in tokens] == [200] * 3
        said = [line for line in proxy.log() if line["event"] == "state-unwritten"]
        assert [line["detail"] for line in said] == ["No space left on device"]
    with running_proxy(hardened.address, state=small_disk) as proxy:
        assert proxy.get(MAC, tokens[0]).status == 200  # the service itself knows it


def test_a_thousand_callers_at_cold_start_cause_one_token_put(hardened: Emulator) -> None:
    with running_proxy(hardened.address, {"upstream": {"deadline": "999ms"}}) as proxy:
        wait_for(lambda: hardened.counters().by_path != {})  # the probe of made-up tokens is over
        request = b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"
        callers = [socket.create_connection((proxy.host, proxy.port)) for _ in range(1000)]
        for caller in callers:
            caller.sendall(request)
        statuses = []
        for caller in callers:
            with caller, caller.makefile("rb") as answer:
                statuses.append(answer.readline())
        assert set(statuses) == {b"HTTP/1.1 200 OK\r\n"}
        assert hardened.counters().token_puts == 1


def test_upstream_restarts_revocations_and_resets_between_requests_cost_no_caller(hardened: Emulator) -> None:
    with running_proxy(hardened.address) as proxy:
        failed: list[object] = []
        connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)

        def restart() -> None:
            hardened.stop()
            hardened.start()

        disturbances = (hardened.revoke_tokens, hardened.reset_connections, restart)
        for turn in range(400):
            if turn % 10 == 0:
                disturbances[turn // 10 % len(disturbances)]()
            connection.request("GET", MAC)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failed.append((turn, response.status))
        connection.close()
        assert failed == []


@pytest.mark.parametrize("fault", ["hang", "drip", "refuse"])
def test_with_the_service_ailing_200_waiting_callers_hear_within_a_second(
    hardened: Emulator, fault: str
) -> None:
    with running_proxy(hardened.address) as proxy:
        assert proxy.get(MAC).status == 200
        if fault == "refuse":
            hardened.stop()
        else:
            hardened.patch(fault=fault)
        heads = [b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"] * 100
        heads += [
            b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n"
            b"X-aliyun-ecs-metadata-token-ttl-seconds: %d\r\n\r\n" % ttl
            for ttl in range(1, 101)
        ]
        callers = [socket.create_connection((proxy.host, proxy.port)) for _ in heads]
        slowest, statuses = 0.0, []
        sent = []
        for caller, head in zip(callers, heads, strict=True):
            caller.sendall(head)
            sent.append(time.monotonic())
        for caller, began in zip(callers, sent, strict=True):
            with caller, caller.makefile("rb") as answer:
                statuses.append(int(answer.readline().split()[1]))
                slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.0
        assert all(status in (200, 503) for status in statuses)
        assert all(not 400 <= status < 500 for status in statuses[100:])
        if fault == "refuse":
            hardened.start()


def ask_directly(emulator: Emulator, path: str, headers: dict[str, str] | None = None) -> Reply:
    host, port = emulator.address
    return ask(host, port, "GET", path, headers)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


# In a namespace with one router between a client and the proxy: says whether the client hears an answer.
_BEHIND_A_ROUTER = """
import subprocess
from imds_proxy.emulator.service import Emulator
from proxy import running_proxy
NETWORK = [
    "netns add ipx-router",
    "netns add ipx-client",
    "link add ipxa type veth peer name ipxb netns ipx-router",
    "link add ipxc type veth peer name ipxd netns ipx-router",
    "link set ipxc netns ipx-client",
    "addr add 10.213.1.1/24 dev ipxa",
    "link set ipxa up",
    "link set lo up",
    "route add 10.213.2.0/24 via 10.213.1.2",
    "-n ipx-router addr add 10.213.1.2/24 dev ipxb",
    "-n ipx-router addr add 10.213.2.2/24 dev ipxd",
    "-n ipx-router link set dev ipxb up",
    "-n ipx-router link set dev ipxd up",
    "netns exec ipx-router sysctl -qw net.ipv4.ip_forward=1",
    "-n ipx-client addr add 10.213.2.1/24 dev ipxc",
    "-n ipx-client link set ipxc up",
    "-n ipx-client route add default via 10.213.2.2",
]
try:
    for words in NETWORK:
        subprocess.run(["ip", *words.split()], check=True)
    for limit in (1, 2):
        settings = {"hop_limit": limit}
        with (
            Emulator() as service,
            running_proxy(service.address, settings, port=8100, host="10.213.1.1"),
        ):
            call = ["curl", "-s", "-m", "2", "http://10.213.1.1:8100/latest/meta-data/mac"]
            near = subprocess.run(call, capture_output=True).returncode
            far = subprocess.run(["ip", "netns", "exec", "ipx-client", *call], capture_output=True).returncode
            print(limit, near, far)
finally:
    for name in ("ipx-router", "ipx-client"):
        subprocess.run(["ip", "netns", "del", name])
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_answers_pass_no_router_unless_told_to() -> None:
    support = Path(__file__).parent.parent / "support"
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-c", _BEHIND_A_ROUTER],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{support}:{os.environ.get('PYTHONPATH', '')}"},
    )
    timed_out = 28  # curl's exit code
    assert done.stdout == f"1 0 {timed_out}\n2 0 0\n", done.stderr
