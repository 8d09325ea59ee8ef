"""`workers: N`: more processes answer, and nobody can tell it from one but by the load that it bears."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from crewed import KNOWN, MAC, all_know, crewed, learnt, over, session, standing_still, until
from imds_proxy.emulator.service import Emulator
from proxy import TTL_HEADER, Proxy, running_proxy

ROLES = "/latest/meta-data/ram/security-credentials/"
HEAD = "Host: 100.100.100.200\r\n"


def raw(proxy: Proxy, request: bytes, pieces: int = 1) -> bytes:
    """All that comes back on a connection of its own, without what tells the time."""
    with socket.create_connection((proxy.host, proxy.port), 5) as wire:
        size = max(1, -(-len(request) // pieces))
        for start in range(0, len(request), size):
            wire.sendall(request[start : start + size])
            if pieces > 1:
                time.sleep(0.005)
        wire.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    return re.sub(rb"Date: [^\r]+", b"Date:", answer)


def counted(proxy: Proxy) -> int:
    """Requests in the ledger, of a daemon that has ended."""
    with closing(sqlite3.connect(proxy.state / "ledger.db")) as ledger:
        (total,) = ledger.execute("SELECT SUM(count) FROM hours").fetchone()
    return int(total)


REQUESTS = {
    "get": f"GET {MAC} HTTP/1.1\r\n{HEAD}\r\n",
    "close": f"GET {MAC} HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n",
    "http-1.0": f"GET {MAC} HTTP/1.0\r\n\r\n",
    "head": f"HEAD {MAC} HTTP/1.1\r\n{HEAD}\r\n",
    "missing": f"GET /latest/meta-data/no-such HTTP/1.1\r\n{HEAD}\r\n",
    "relayed": f"GET {MAC} HTTP/1.1\r\n{HEAD}X-Forwarded-For: 10.0.0.1\r\n\r\n",
    "foreign-host": f"GET {MAC} HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "method": f"TRACE {MAC} HTTP/1.1\r\n{HEAD}\r\n",
    "no-http": "hello\r\n\r\n",
    "pipeline": f"GET {MAC} HTTP/1.1\r\n{HEAD}\r\n" * 5,
    "bare-lf": f"GET {MAC} HTTP/1.1\n{HEAD}\n".replace("\r", ""),
    "nothing": "",
    "half": f"GET {MAC} HT",
}


def test_answers_are_those_of_one_process_known_by_heart_or_not(service: Emulator, proxy: Proxy) -> None:
    with running_proxy(service.address) as alone:
        for name, request in REQUESTS.items():
            for pieces in (1, 1, 1, 1, 3):
                ours, theirs = (raw(one, request.encode(), pieces) for one in (proxy, alone))
                # The Host that names a port is no part of it.
                assert ours == theirs, name


def test_a_token_given_by_one_process_is_good_in_all(proxy: Proxy) -> None:
    connection = session(proxy)
    token = over(connection, "/latest/api/token", "PUT", **{TTL_HEADER.replace("-", "_"): "60"}).body.decode()
    for _ in range(20):
        assert proxy.get(MAC, token).status == 200
        assert proxy.put_token(60).body.decode() == token
    assert proxy.get(MAC, token[:-4] + "AAAA").status == 401


def test_what_is_known_by_heart_is_answered_by_workers_alone(proxy: Proxy) -> None:
    """So the daemon may stand still meanwhile."""
    kept = learnt(session(proxy))
    all_know(proxy)
    with standing_still(proxy.process.pid):
        assert over(kept, MAC).status == 200
        assert [proxy.request("GET", MAC, timeout=2).status for _ in range(20)] == [200] * 20


def test_a_connection_goes_back_to_its_worker_after_what_was_not_known(proxy: Proxy) -> None:
    kept = learnt(learnt(session(proxy)))  # so often that it is worth while
    assert over(kept, "/latest/meta-data/no-such").status == 404  # by the daemon
    for _ in range(KNOWN):
        assert over(kept, "/latest/meta-data/hostname").status == 200
        time.sleep(0.01)
    with standing_still(proxy.process.pid):
        assert over(kept, "/latest/meta-data/hostname").status == 200
        assert over(kept, MAC).status == 200


def test_after_a_reload_returns_no_worker_answers_by_the_old_rules(proxy: Proxy) -> None:
    """Callers ask without a pause; an answer counts for the rules in force when it was asked for."""
    allowed, denied = (
        {"enforcement": "enforce", "rules": []},
        {
            "enforcement": "enforce",
            "rules": [{"name": "no", "allow": False, "paths": ["meta-data/**"]}],
        },
    )
    asked: list[tuple[float, float, int]] = []
    over_yet = threading.Event()

    def keep_asking(keep: bool) -> None:
        connection = session(proxy)
        while not over_yet.is_set():
            began = time.monotonic()
            status = over(connection, MAC).status if keep else proxy.get(MAC).status
            asked.append((began, time.monotonic(), status))

    threads = [
        threading.Thread(target=keep_asking, args=(keep,)) for keep in (True, True, True, False, False)
    ]
    for thread in threads:
        thread.start()
    changes: list[tuple[float, float, int]] = []
    for turn in range(10):
        time.sleep(0.15)
        began = time.monotonic()
        proxy.change(policy=denied if turn % 2 == 0 else allowed)
        assert proxy.reload().returncode == 0
        changes.append((began, time.monotonic(), 403 if turn % 2 == 0 else 200))
    time.sleep(0.15)
    over_yet.set()
    for thread in threads:
        thread.join(10)
    surely = 0
    for number, (_, since, status) in enumerate(changes):
        to = changes[number + 1][0] if number + 1 < len(changes) else float("inf")
        within = [one for one in asked if since <= one[0] and one[1] <= to]
        assert {one[2] for one in within} <= {status}
        surely += len(within)
    assert surely > 500


def test_credentials_of_a_role_that_was_removed_are_served_by_nobody(service: Emulator) -> None:
    with crewed(service, cache={"listing": "1s"}) as proxy:
        kept = [learnt(session(proxy), ROLES + "demo-role") for _ in range(4)]
        service.patch(role="other-role")
        until(lambda: proxy.get(ROLES).body == b"other-role")
        for connection in kept:
            assert over(connection, ROLES + "demo-role").status == 404
        for _ in range(10):
            assert proxy.get(ROLES + "demo-role").status == 404


def test_credentials_that_were_replaced_are_served_by_nobody(service: Emulator, proxy: Proxy) -> None:
    """The service's clock jumps: what is kept is forgotten with the first answer that tells."""
    kept = [learnt(session(proxy), ROLES + "demo-role") for _ in range(4)]
    old = over(kept[0], ROLES + "demo-role").body
    service.patch(clock_offset=21000)
    assert proxy.get("/latest/meta-data/no-such").status == 404
    for connection in kept:
        assert over(connection, ROLES + "demo-role").body != old
    for _ in range(10):
        assert proxy.get(ROLES + "demo-role").body != old


def test_a_plain_get_after_a_failed_hardened_call_is_a_fallback_whoever_answers(
    service: Emulator, tmp_path: Path
) -> None:
    with crewed(service, ledger={"path": str(tmp_path / "ledger.db")}) as proxy:
        kept = learnt(session(proxy))
        assert proxy.get(MAC, "A" * 56).status == 401
        for _ in range(5):
            assert over(kept, MAC).status == 200
        assert proxy.stop() == 0
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
            sessions = dict(ledger.execute("SELECT session, SUM(count) FROM hours GROUP BY session"))
    assert (sessions["legacy"], sessions["fallback"]) == (KNOWN, 5)


def test_a_caller_has_one_bucket_however_many_workers_answer(service: Emulator) -> None:
    rate, burst = 100, 400
    with crewed(service, workers=3, limits={"hits": f"{rate}/s burst {burst}"}) as proxy:
        given: list[tuple[float, int]] = []
        began = time.monotonic()

        def keep_asking(keep: bool) -> None:
            connection = session(proxy)
            while time.monotonic() - began < 3:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status = over(connection, MAC).status if keep else proxy.get(MAC).status
                    given.append((time.monotonic() - began, status))

        threads = [threading.Thread(target=keep_asking, args=(keep,)) for keep in (True, True, True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        took = time.monotonic() - began
    times = [at for at, status in given if status == 200]
    assert {status for _, status in given} == {200, 429}
    assert burst <= len(times) + 20  # all of it may be used
    assert len(times) <= burst + rate * took + 1


@pytest.mark.root
def test_each_caller_is_named_right_by_whichever_worker(service: Emulator) -> None:
    rules = [
        {"name": "one", "caller": {"user": "daemon"}, "paths": ["meta-data/mac"]},
        {"name": "two", "caller": {"user": "nobody"}, "paths": ["meta-data/hostname"]},
    ]
    policy = {"enforcement": "enforce", "default": "deny", "rules": rules}
    script = (
        "import http.client, sys\n"
        "found = []\n"
        "for turn in range(60):\n"
        "    if turn % 12 == 0: c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)\n"
        "    c.request('GET', '/latest/meta-data/' + sys.argv[3 + turn % 2])\n"
        "    r = c.getresponse(); r.read(); found.append(r.status)\n"
        "print(*found)\n"
    )
    with crewed(service, policy=policy) as proxy:
        words = ["/usr/bin/env", "python3", "-c", script, proxy.host, str(proxy.port), "mac", "hostname"]
        asking = {
            user: subprocess.Popen(
                words, user=user, group=user_group, stdout=subprocess.PIPE, text=True, cwd="/"
            )
            for user, user_group in (("daemon", "daemon"), ("nobody", "nogroup"))
        }
        found = {user: process.communicate(timeout=30)[0].split() for user, process in asking.items()}
    assert found == {"daemon": ["200", "403"] * 30, "nobody": ["403", "200"] * 30}


def test_the_ledger_has_every_request_after_a_clean_stop(service: Emulator) -> None:
    each, callers = 150, 4
    with crewed(service) as proxy:

        def ask_often(keep: bool) -> None:
            connection = session(proxy)
            for _ in range(each):
                assert (over(connection, MAC) if keep else proxy.get(MAC)).status == 200

        threads = [threading.Thread(target=ask_often, args=(turn % 2 == 0,)) for turn in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert proxy.stop() == 0
        assert counted(proxy) == each * callers


def test_a_callers_connections_are_limited_in_sum(service: Emulator) -> None:
    with crewed(service, limits={"connections_per_caller": 6}) as proxy:
        learnt(session(proxy)).close()
        kept = []
        for _ in range(20):
            kept.append(connection := session(proxy))
            for _ in range(2):
                assert over(connection, MAC).status == 200
            time.sleep(0.06)  # it stays

        def open_ones() -> int:
            count = 0
            for connection in kept:
                connection.sock.setblocking(False)
                try:
                    count += connection.sock.recv(1, socket.MSG_PEEK) != b""
                except BlockingIOError:
                    count += 1
            return count

        until(lambda: open_ones() <= 6)
        time.sleep(0.2)
        assert open_ones() == 6


def test_an_idle_connection_is_closed_in_its_time(service: Emulator) -> None:
    with crewed(service, limits={"idle_timeout": "1s"}) as proxy:
        kept = learnt(session(proxy))
        kept.sock.settimeout(5)
        assert kept.sock.recv(1) == b""
