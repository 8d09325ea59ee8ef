#!/usr/bin/env python3
"""Resident memory of the proxy beside nginx: fresh, and with many idle keep-alive connections.

Starts both itself, on loopback; each connection has had one answer. Rows as those of run.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from imds_proxy.demo.processes import announced, ending

ITEM = "/latest/meta-data/instance-id"
REQUEST = f"GET {ITEM} HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n".encode()
CONNECTIONS = 10_000
MIB = 1024 * 1024
METRIC = "resident_mib"


def resident(pid: int) -> float:
    """MiB of a process that are in memory, from the kernel's accounting."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def nginx_configuration(directory: Path, upstream: int, port: int) -> str:
    """One worker that caches, with room for the connections."""
    return f"""
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
worker_rlimit_nofile {CONNECTIONS + 1000};
events {{ worker_connections {CONNECTIONS + 500}; }}
http {{
  access_log off; keepalive_timeout 3600;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  proxy_cache_path {directory}/cache keys_zone=items:1m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_cache items; proxy_cache_valid 200 10m; }}
  }}
}}
"""


@contextmanager
def started(command: list[str], log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process, ended by its pid."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    with ending(process):
        yield process


@contextmanager
def targets(directory: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """Name to port and pid of each server that is measured."""
    program = [sys.executable, "-m", "imds_proxy"]
    with ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("w"))
        service = stack.enter_context(started([*program, "emulate", "--listen", "127.0.0.1:0"], log))
        upstream = int(announced(service).rpartition(":")[2])
        config = directory / "config.yaml"
        config.write_text(
            f"state: {directory}/state\nadmin: {{socket: {directory}/admin}}\n"
            "limits: {hits: 1000000/s}\n"  # all connections are one caller's, and each asks once
        )
        run = ["run", "-c", str(config), "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{upstream}"]
        proxy = stack.enter_context(started([*program, *run], log))
        found = {"imds-proxy": (int(announced(proxy).rpartition(":")[2]), proxy.pid)}
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        (directory / "nginx.conf").write_text(nginx_configuration(directory, upstream, port))
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
        words = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        peer = stack.enter_context(started(words, log))
        found["nginx proxy_cache"] = (port, peer.pid)
        yield found


def ask(wire: socket.socket) -> None:
    """One answer on a connection. Raises RuntimeError for any but 200."""
    wire.sendall(REQUEST)
    raw = b""
    while b"\r\n\r\n" not in raw or not raw.partition(b"\r\n\r\n")[2]:
        data = wire.recv(4096)
        if not data:
            raise RuntimeError(f"closed unanswered: {raw[:80]!r}")
        raw += data
    if not raw.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {raw[:80]!r}")


def connected(port: int) -> socket.socket:
    """A connection to a server that may be starting."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            subprocess.run(["sleep", "0.05"], check=True)
    raise RuntimeError(f"nothing listens on port {port}")


def measure(connections: int) -> list[dict[str, Any]]:
    """The rows. Raises RuntimeError where a server fails, OSError where files are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError(f"the limit of open files is {hard}; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    values: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as temporary, targets(Path(temporary)) as found:
        for name, (port, pid) in found.items():
            with ExitStack() as stack:
                ask(stack.enter_context(connected(port)))
                values["fresh", name] = resident(pid)
                for _ in range(connections):
                    ask(stack.enter_context(connected(port)))
                values[f"{connections} idle connections", name] = resident(pid)
    return rows(values)


def rows(values: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    """Rows of the machine contract: workload, target, metric, value, spread, ratio_to."""
    return [
        {
            "workload": workload,
            "target": target,
            "metric": METRIC,
            "value": round(value, 1),
            "spread": 0.0,
            "ratio_to": {
                other: round(value / theirs, 3)
                for (same, other), theirs in values.items()
                if same == workload and other != target
            },
        }
        for (workload, target), value in values.items()
    ]


def main() -> int:
    """Measures and prints. Exit code 1 where a server fails or a program is missing, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    if not 1 <= arguments.connections <= CONNECTIONS:
        parser.error(f"--connections is from 1 to {CONNECTIONS}")
    try:
        found = measure(arguments.connections)
    except (OSError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("| workload | target | MiB | ratio |\n| --- | --- | ---: | ---: |")
    for row in found:
        ratio = next(iter(row["ratio_to"].values()))
        print(f"| {row['workload']} | {row['target']} | {row['value']:.1f} | {ratio:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
