#!/usr/bin/env python3
"""Throughput and CPU per request of the proxy beside the service direct and nginx, in one interleaved run.

Starts every target itself, on loopback: the measured one on core 0, the service and the load on core 1.
Absolute figures are of this machine; the ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from imds_proxy.demo.processes import announced, ending

ITEM = "/latest/meta-data/instance-id"
TICK = os.sysconf("SC_CLK_TCK")  # kernel accounting: ticks a second of /proc/PID/stat
WORKLOADS = {
    "keepalive": "16 connections, each used again and again",
    "connect": "one connection for each request (curl, most SDKs)",
    "attribution": "one connection for each token PUT, which the proxy answers by itself",
    "attribution-2000": "the same with 2,000 idle processes on the machine",
}
# Far above what the load asks for: limits are not what is measured.
LIMITS = "limits: {hits: 1000000/s, misses: 1000000/s, upstream: 1000000/s}\n"
PUT = """
wrk.method, wrk.path = "PUT", "/latest/api/token"
wrk.headers["X-aliyun-ecs-metadata-token-ttl-seconds"] = "600"
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured: its name, port on loopback, the processes whose CPU time counts, and a script for
    wrk."""

    name: str
    port: int
    pids: tuple[int, ...]
    script: Path | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the load: requests a second, CPU microseconds a request, requests not answered with 2xx."""

    rate: float
    cpu: float
    failed: int


def cores() -> tuple[int, int]:
    """The core of the measured server and the core of everything else (the same where there is one)."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """User and system time so far of the processes, from the kernel's accounting."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def load(target: Target, workload: str, seconds: float) -> Sample:
    """Runs wrk against the target. Raises RuntimeError where wrk gives no figures."""
    head = [] if workload == "keepalive" else ["-H", "Connection: close"]
    if workload.startswith("attribution"):
        head += ["-s", str(target.script)]
    url = f"http://127.0.0.1:{target.port}{ITEM}"
    command = ["wrk", "-t1", "-c16", f"-d{seconds:g}s", *head, url]
    before = cpu_seconds(target.pids)
    done = subprocess.run(
        ["taskset", "-c", str(cores()[1]), *command], capture_output=True, text=True, timeout=seconds + 30
    )
    used = cpu_seconds(target.pids) - before
    return parse_wrk(done.stdout, used)


def parse_wrk(text: str, cpu: float) -> Sample:
    """The sample of wrk's report and the CPU seconds used meanwhile. Raises RuntimeError without figures."""
    total = re.search(r"(\d+) requests in ", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if not total or not rate or int(total[1]) == 0:
        raise RuntimeError(f"wrk gave no figures: {text!r}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Sample(float(rate[1]), cpu / int(total[1]) * 1e6, int(failed[1]) if failed else 0)


@contextmanager
def started(command: list[str], core: int, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process on one core, ended by its pid."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, stderr=log, text=True
    )
    with ending(process):
        yield process


def announced_port(process: subprocess.Popen[str]) -> int:
    """The port on which it listens. Raises RuntimeError when the process says otherwise."""
    try:
        return int(announced(process).rpartition(":")[2])
    except RuntimeError as error:
        raise RuntimeError(f"{process.args!r} did not start: {str(error)!r}") from None


def nginx_configuration(directory: Path, upstream: int, ports: tuple[int, int]) -> str:
    """One nginx worker that passes on, and one server that caches."""
    return f"""
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  proxy_cache_path {directory}/cache keys_zone=items:1m;
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{ports[0]} backlog=4096;
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_set_header Host 100.100.100.200; }}
  }}
  server {{
    listen 127.0.0.1:{ports[1]} backlog=4096;
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_set_header Host 100.100.100.200; proxy_cache items; proxy_cache_valid 200 10m; }}
  }}
}}
"""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that are free now."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


@contextmanager
def targets(directory: Path) -> Iterator[list[Target]]:
    """The service and all that is measured before it, running."""
    server_core, other_core = cores()
    with ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("w"))
        program = [sys.executable, "-m", "imds_proxy"]
        service = stack.enter_context(
            started([*program, "emulate", "--listen", "127.0.0.1:0"], other_core, log)
        )
        upstream = announced_port(service)
        # The copy of the service that is measured runs on the core that every measured server has.
        direct = stack.enter_context(
            started([*program, "emulate", "--listen", "127.0.0.1:0"], server_core, log)
        )
        config = directory / "config.yaml"
        config.write_text(f"state: {directory}/state\nadmin: {{socket: {directory}/admin}}\n{LIMITS}")
        run = ["run", "-c", str(config), "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{upstream}"]
        proxy = stack.enter_context(started([*program, *run], server_core, log))
        found = [
            Target("imds-proxy", announced_port(proxy), (proxy.pid,)),
            Target("service direct", announced_port(direct), (direct.pid,)),
        ]
        passing, caching = free_ports(2)
        (directory / "nginx.conf").write_text(nginx_configuration(directory, upstream, (passing, caching)))
        nginx = [shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"]
        peer = stack.enter_context(
            started([*nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")], server_core, log)
        )
        found += [
            Target("nginx proxy_pass", passing, (peer.pid,)),
            Target("nginx proxy_cache", caching, (peer.pid,)),
        ]
        yield found


@contextmanager
def attributed(directory: Path) -> Iterator[list[Target]]:
    """The proxy three times: with nobody to name, looking in /proc, and with notes of the kernel."""
    server_core, other_core = cores()
    script = directory / "put.lua"
    script.write_text(PUT)
    with ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("w"))
        program = [sys.executable, "-m", "imds_proxy"]
        service = stack.enter_context(
            started([*program, "emulate", "--listen", "127.0.0.1:0"], other_core, log)
        )
        upstream = announced_port(service)
        found: list[Target] = []
        for name, method in (("no attribution", "procfs"), ("procfs", "procfs"), ("ebpf", "ebpf")):
            own = directory / name
            own.mkdir()
            config = own / "config.yaml"
            config.write_text(
                f"state: {own}/state\nadmin: {{socket: {own}/admin}}\nattribution: {method}\n{LIMITS}"
            )
            words = program if found else [sys.executable, str(Path(__file__).parent / "unattributed.py")]
            run = ["run", "-c", str(config), "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{upstream}"]
            proxy = stack.enter_context(started([*words, *run], server_core, log))
            found.append(Target(name, announced_port(proxy), (proxy.pid,), script))
        yield found


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """That many idle processes, ended by pid."""
    sleepers = [subprocess.Popen(["sleep", "3600"]) for _ in range(count)]
    try:
        yield
    finally:
        for sleeper in sleepers:
            sleeper.kill()
        for sleeper in sleepers:
            sleeper.wait()


def measure(workloads: list[str], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Rows of the machine contract: workload, target, metric, value, spread, ratio_to.

    Raises RuntimeError when a target answered anything but 2xx: a figure of errors says nothing.
    """
    samples: dict[tuple[str, str], list[Sample]] = {}
    for workload in workloads:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            kind = attributed if workload.startswith("attribution") else targets
            found = stack.enter_context(kind(directory))
            stack.enter_context(crowd(2000 if workload.endswith("2000") else 0))
            for target in found:
                load(target, workload, min(1.0, seconds))  # warm-up
            for _ in range(repeats):  # interleaved, so that a noisy minute meets all alike
                for target in found:
                    sample = load(target, workload, seconds)
                    if sample.failed:
                        raise RuntimeError(f"{target.name}, {workload}: {sample.failed} failed requests")
                    samples.setdefault((workload, target.name), []).append(sample)
    return rows(samples)


def rows(samples: dict[tuple[str, str], list[Sample]]) -> list[dict[str, Any]]:
    """Median and spread ((max - min) / median) of each metric, and its ratio to each other target."""
    values: dict[tuple[str, str, str], tuple[float, float]] = {}
    for (workload, target), taken in samples.items():
        for metric, of in (
            ("requests_per_second", [one.rate for one in taken]),
            ("cpu_us_per_request", [one.cpu for one in taken]),
        ):
            median = statistics.median(of)
            values[workload, target, metric] = (median, (max(of) - min(of)) / median if median else 0.0)
    return [
        {
            "workload": workload,
            "target": target,
            "metric": metric,
            "value": round(value, 2),
            "spread": round(spread, 3),
            "ratio_to": {
                other: round(value / median, 3)
                for (same, other, kind), (median, _) in values.items()
                if same == workload and kind == metric and other != target and median
            },
        }
        for (workload, target, metric), (value, spread) in values.items()
    ]


def table(found: list[dict[str, Any]]) -> str:
    """The rows as one Markdown table. The ratio is imds-proxy's value to the target's; of attribution the
    target's to that without."""
    lines = [
        "| workload | target | metric | value | spread | ratio |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    values = {(row["workload"], row["target"], row["metric"]): row["value"] for row in found}
    for row in found:
        value = row["value"]
        if (row["workload"], "no attribution", row["metric"]) in values:
            ratio = value / values[row["workload"], "no attribution", row["metric"]]
        else:
            ratio = values[row["workload"], "imds-proxy", row["metric"]] / value
        lines.append(
            f"| {row['workload']} | {row['target']} | {row['metric']} | {value:.1f} "
            f"| {row['spread']:.0%} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measures and prints. Exit code 1 where a target fails or a program is missing, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--quick", action="store_true", help="short runs: a smoke test, not a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    unknown = [one for one in arguments.workloads if one not in WORKLOADS]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    try:
        found = measure(arguments.workloads or list(WORKLOADS), *((1.0, 1) if arguments.quick else (4.0, 5)))
    except (OSError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
