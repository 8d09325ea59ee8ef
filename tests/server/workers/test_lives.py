"""`workers: N`: processes that begin, die, stand still and end, and what callers notice of it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from crewed import (
    KNOWN,
    MAC,
    children,
    is_alive,
    learnt,
    nursery_of,
    session,
    standing_still,
    until,
    wait_for_workers,
    workers_of,
)
from imds_proxy.emulator.service import Emulator
from proxy import Proxy, running_proxy


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
    assert len(proxy.events("worker-ended")) == len(killed)


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
    assert not proxy.events("worker-ended")
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
    proxy.change(workers=3)
    assert proxy.reload().stdout == "reloaded; needs a restart to take effect: workers\n"
    assert len(workers_of(proxy)) == 2


def test_a_daemon_alone_has_no_other_process(service: Emulator) -> None:
    with running_proxy(service.address) as alone:
        assert alone.get(MAC).status == 200
        assert children(alone.process.pid) == []
