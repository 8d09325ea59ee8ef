"""The load: `load.c`, compiled on first use, and what it says. wrk has no open loop, wrk2 is in no Debian."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accounting import cores

SOURCE = Path(__file__).with_name("load.c")
_FIRST_UID = 20_000
TOKEN_HEADER = "X-aliyun-ecs-metadata-token"
ITEMS = [
    "instance-id",
    "mac",
    "hostname",
    "image-id",
    "region-id",
    "zone-id",
    "vpc-id",
    "vswitch-id",
    "private-ipv4",
    "serial-number",
    "owner-account-id",
    "network-type",
    "vpc-cidr-block",
    "vswitch-cidr-block",
    "source-address",
    "instance/instance-type",
    "dns-conf/nameservers",
    "ntp-conf/ntp-servers",
    "instance/instance-name",
    "eipv4",
]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for: `mode` keep, once or pair; `rate` a second of all callers, 0 for a closed loop;
    `callers` processes, each its own user where root starts them, with `connections` each."""

    mode: str = "keep"
    callers: int = 100
    connections: int = 1
    rate: float = 0.0
    distinct: int = 200  # heads
    misses: str = ""  # what is asked for: items that are there, or `own` of each caller, or `new` each time


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: requests a second, CPU microseconds a request of the server, latencies in microseconds from
    when a request was due."""

    rate: float
    cpu: float
    p50: float
    p99: float
    p999: float


def heads(load: Load) -> list[str]:
    """Distinct heads: items under clients of many versions; in mode pair the PUT comes first."""
    found = []
    for number in range(load.distinct):
        own = "bench-%NUMBER%" if load.misses == "new" else f"bench-{number}"
        name = own if load.misses else ITEMS[number % len(ITEMS)]
        lines = [f"GET /latest/meta-data/{name} HTTP/1.1", "Host: 100.100.100.200"]
        lines.append(f"User-Agent: client/1.{number // len(ITEMS)}")
        if load.mode == "pair":
            lines.append(f"{TOKEN_HEADER}: %TOKEN%")
        if load.mode == "once":
            lines.append("Connection: close")
        found.append("\r\n".join([*lines, "Accept: */*", "", ""]))
    if load.mode == "pair":
        put = "PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n"
        found.insert(0, f"{put}{TOKEN_HEADER}-ttl-seconds: 21600\r\n\r\n")
    return found


def compiled(directory: Path) -> Path:
    """The program, built with the machine's compiler. Raises RuntimeError."""
    program = directory / "load"
    if not program.exists():
        done = subprocess.run(
            ["gcc", "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"cannot compile {SOURCE.name}: {done.stderr.strip()}")
    return program


def run(
    load: Load, port: int, seconds: float, warmup: float, directory: Path, used: Callable[[], float]
) -> Sample:
    """Loads a port; `used` tells the server's CPU seconds so far. Raises RuntimeError for any request that
    was not answered with 200."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write("\0".join([*heads(load), ""]).encode())
        file.flush()
        Path(file.name).chmod(0o644)
        uid = _FIRST_UID if os.geteuid() == 0 else 0
        words = [port, load.callers, load.connections, seconds, warmup, load.rate, load.mode, uid, file.name]
        command = ["taskset", "-c", str(cores()[1]), str(compiled(directory)), *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            before = used()
            said = process.stdout.readline()
            after = used()
            if not said:
                raise RuntimeError(f"the load ended: {process.stderr.read().strip()}")
    return sample(said, after - before)


def sample(said: str, cpu: float) -> Sample:
    """The sample of what the generator says and the CPU seconds used meanwhile. Raises RuntimeError."""
    found = json.loads(said)
    count = found["requests"]
    if not count:
        raise RuntimeError(f"no request was answered: {said.strip()}")
    if found["failed"] or found["broken"] > count / 1000:
        raise RuntimeError(f"{found['failed']} refused, {found['broken']} broken of {count} requests")
    rate = count / found["seconds"]
    return Sample(rate, cpu / count * 1e6, found["p50_us"], found["p99_us"], found["p999_us"])
