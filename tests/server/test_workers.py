"""`workers: N`: more processes answer, and nobody can tell it from one but by the load that it bears."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from crewed import children, is_alive, nursery_of, standing_still, until, wait_for_workers, workers_of
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import TTL_HEADER, Proxy, Reply, running_proxy

MAC = "/latest/meta-data/mac"
ROLES = "/latest/meta-data/ram/security-credentials/"
HEAD = "Host: 100.100.100.200\r\n"
KNOWN = 4  # times that a request is made until a worker knows it by heart


@pytest.fixture
def service() -> Iterator[Emulator]:
    """Accepts hardened mode only."""
    with Emulator(settings=Settings(http_tokens="required")) as emulator:
        yield emulator


@contextlib.contextmanager
def crewed(service: Emulator, **settings: Any) -> Iterator[Proxy]:
    count = settings.pop("workers", 2)
    with running_proxy(service.address, {"workers": count, **settings}) as proxy:
        wait_for_workers(proxy, count)
        yield proxy


@pytest.fixture
def proxy(service: Emulator) -> Iterator[Proxy]:
    with crewed(service) as one:
        yield one


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


class Session(http.client.HTTPConnection):
    """One connection of a caller, closed when nobody has it any more."""

    def __del__(self) -> None:
        self.close()


def session(proxy: Proxy) -> Session:
    return Session(proxy.host, proxy.port, timeout=5)


def over(connection: Session, path: str, method: str = "GET", **headers: str) -> Reply:
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    response = connection.getresponse()
    return Reply(response.status, response.read())


def learnt(connection: Session, path: str = MAC) -> Session:
    """A connection that a worker holds, and answers by heart."""
    for _ in range(KNOWN):
        assert over(connection, path).status == 200
        time.sleep(0.01)  # it goes back once its answer has been sent
    return connection


def all_know(proxy: Proxy, path: str = MAC) -> None:
    """Every worker knows by heart what is asked for on a connection of its own."""
    for one in workers_of(proxy):
        with standing_still(*(pid for pid in workers_of(proxy) if pid != one)):
            for _ in range(KNOWN):
                assert proxy.get(path).status == 200


def reload(proxy: Proxy, **settings: object) -> None:
    """Another configuration is in force when this returns."""
    before = yaml.safe_load(proxy.config.read_text())
    proxy.config.write_text(yaml.safe_dump({**before, **settings}))
    words = [sys.executable, "-m", "imds_proxy", "reload", "-c", str(proxy.config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def events(proxy: Proxy, name: str) -> list[dict[str, Any]]:
    return [event for event in proxy.log() if event["event"] == name]


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
        reload(proxy, policy=denied if turn % 2 == 0 else allowed)
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


def test_a_worker_that_is_killed_takes_with_it_only_what_it_had_accepted(proxy: Proxy) -> None:
    for _ in range(KNOWN):
        assert proxy.get(MAC).status == 200
    outcomes: list[object] = []
    over_yet = threading.Event()

    def keep_asking() -> None:
        while not over_yet.is_set():
            try:
                outcomes.append(proxy.get(MAC).status)
            except (OSError, http.client.HTTPException) as error:
                outcomes.append(error)

    callers = 8
    threads = [threading.Thread(target=keep_asking) for _ in range(callers)]
    for thread in threads:
        thread.start()
    killed = []
    for _ in range(3):
        time.sleep(0.3)
        victim = workers_of(proxy)[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
        wait_for_workers(proxy)  # another one takes its place
    over_yet.set()
    for thread in threads:
        thread.join(10)
    lost = [one for one in outcomes if one != 200]
    assert len(lost) <= len(killed) * callers  # what each of them had under way
    assert not any(isinstance(one, (ConnectionRefusedError, TimeoutError)) for one in lost), lost
    assert len(outcomes) > 100
    assert len(events(proxy, "worker-ended")) == len(killed)


def test_what_waits_is_answered_when_all_workers_are_killed(proxy: Proxy) -> None:
    for _ in range(KNOWN):
        proxy.get(MAC)
    with standing_still(proxy.process.pid, *workers_of(proxy)):
        waiting = [session(proxy) for _ in range(20)]
        for connection in waiting:
            connection.request("GET", MAC)
        for pid in workers_of(proxy):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not workers_of(proxy))
    assert [connection.getresponse().status for connection in waiting] == [200] * 20


def test_workers_that_stand_still_do_not_hold_up_callers(proxy: Proxy) -> None:
    stuck = workers_of(proxy)
    with standing_still(*stuck):
        time.sleep(1.3)
        assert proxy.request("GET", MAC, timeout=1).status == 200
        until(lambda: not any(is_alive(pid) for pid in stuck))  # killed, and replaced
        wait_for_workers(proxy)
    assert proxy.get(MAC).status == 200


def test_workers_end_with_the_daemon(proxy: Proxy) -> None:
    family = [nursery_of(proxy), *workers_of(proxy)]
    proxy.kill()
    until(lambda: not any(is_alive(pid) for pid in family), 2)


def test_sigterm_answers_what_was_asked_and_leaves_nothing_behind(service: Emulator, proxy: Proxy) -> None:
    family = [nursery_of(proxy), *workers_of(proxy)]
    kept = learnt(session(proxy))
    service.patch(latency=0.4)
    replies: list[int] = []
    path = "/latest/meta-data/hostname"
    asking = threading.Thread(target=lambda: replies.append(proxy.get(path).status))
    asking.start()
    until(lambda: path in service.counters().by_path)
    assert proxy.stop() == 0
    asking.join(5)
    assert replies == [200]
    assert kept.sock.recv(1) == b""  # closed in good order
    assert not any(is_alive(pid) for pid in family)
    assert not events(proxy, "worker-ended")
    with pytest.raises(OSError):
        socket.create_connection((proxy.host, proxy.port), 1)


def test_a_signal_for_the_whole_group_is_the_daemons_matter(proxy: Proxy) -> None:
    """Ctrl-C and `systemctl stop` reach all; what the daemon still waits for its workers do not end."""
    for pid in (nursery_of(proxy), *workers_of(proxy)):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
    time.sleep(0.1)
    assert len(workers_of(proxy)) == 2
    assert proxy.get(MAC).status == 200


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


def test_a_worker_has_no_more_rights_than_the_daemon(proxy: Proxy) -> None:
    def facts(pid: int) -> list[str]:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        wanted = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
        nice = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]
        core = re.findall(r"Max core file size.*", Path(f"/proc/{pid}/limits").read_text())
        return [line for line in status if line.startswith(wanted)] + [nice, *core]

    for pid in (nursery_of(proxy), *workers_of(proxy)):
        assert facts(pid) == facts(proxy.process.pid)


def test_the_nursery_holds_nothing_but_listening_sockets(proxy: Proxy) -> None:
    held = [str(entry.readlink()) for entry in Path(f"/proc/{nursery_of(proxy)}/fd").iterdir()]
    assert len(held) == 7  # the standard three, its control, one address, and two for redirected calls
    assert sum(name.startswith("socket:") for name in held) == 4


def test_a_change_of_workers_needs_a_restart(proxy: Proxy) -> None:
    proxy.config.write_text(proxy.config.read_text().replace("workers: 2", "workers: 3"))
    words = [sys.executable, "-m", "imds_proxy", "reload", "-c", str(proxy.config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.stdout == "reloaded; needs a restart to take effect: workers\n"
    assert len(workers_of(proxy)) == 2


def test_a_daemon_alone_has_no_other_process(service: Emulator) -> None:
    with running_proxy(service.address) as alone:
        assert alone.get(MAC).status == 200
        assert children(alone.process.pid) == []
