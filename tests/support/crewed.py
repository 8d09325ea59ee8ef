"""A daemon with workers, seen from outside: its processes, their standing still, what they know by heart."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imds_proxy.emulator.service import Emulator
from proxy import Proxy, Reply, running_proxy

MAC = "/latest/meta-data/mac"
KNOWN = 4  # times that a request is made until a worker knows it by heart


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def nursery_of(proxy: Proxy) -> int:
    (nursery,) = children(proxy.process.pid)
    return nursery


def workers_of(proxy: Proxy) -> list[int]:
    return [pid for pid in children(nursery_of(proxy)) if is_alive(pid)]


def until(happens: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


def listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
            return words[9]
    raise AssertionError(f"nobody listens at {port}")


def wait_for_workers(proxy: Proxy, count: int = 2) -> None:
    """Until so many accept: each by a copy of the socket of its own."""
    name = f"socket:[{listening_inode(proxy.port)}]"

    def accepting(pid: int) -> bool:
        held = 0
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                held += str(entry.readlink()) == name
        except OSError:
            return False
        return held >= 2

    until(lambda: sum(accepting(pid) for pid in workers_of(proxy)) == count)


@contextmanager
def standing_still(*pids: int) -> Iterator[None]:
    """Stopped meanwhile, as by a loop that does not turn."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def crewed(service: Emulator, **settings: Any) -> Iterator[Proxy]:
    """Begun, with all of its workers; `settings` are configuration keys."""
    count = settings.pop("workers", 2)
    with running_proxy(service.address, {"workers": count, **settings}) as proxy:
        wait_for_workers(proxy, count)
        yield proxy


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
