"""Cores, CPU time, memory and processes of the bench, by the kernel's accounting."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from imds_proxy.demo.processes import announced, ending

MIB = 1024 * 1024


def cores() -> tuple[int, int]:
    """The core of the measured server and the core of everything else (the same where there is one)."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def family(pid: int, count: int) -> tuple[int, ...]:
    """The processes below one, once there are so many. Raises RuntimeError."""
    for _ in range(500):
        found, last = [], [pid]
        while last:
            last = [int(one) for parent in last for one in _children(parent)]
            found += last
        if len(found) == count:
            return tuple(found)
        time.sleep(0.01)
    raise RuntimeError(f"process {pid} has {len(found)} below it, not {count}")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time so far of the threads that these processes have, in nanoseconds' resolution."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mib(pids: Sequence[int]) -> float:
    """MiB of these processes that are in memory."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * resource.getpagesize() / MIB


def raise_file_limit() -> None:
    """As many open files as the machine allows, for the bench and all that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def started(command: Sequence[str], core: int, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process on one core, ended by its pid."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, stderr=log, text=True
    )
    with ending(process):
        yield process


def announced_port(process: subprocess.Popen[str]) -> int:
    """The port on which it says that it listens. Raises RuntimeError when it says otherwise."""
    try:
        return int(announced(process).rpartition(":")[2])
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"{process.args!r} did not start: {str(error)!r}") from None


def free_ports(count: int) -> list[int]:
    """Ports on loopback that are free now."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]
