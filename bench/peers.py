"""All that is measured, with the same upstream behind it: the proxy in some configurations, its peers, the
floor. Each on the measured core, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from accounting import announced_port, cores, family, free_ports, started

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv/bench-peers/bin"  # `make bench` makes it: their packages are not ours
_READY = 120.0  # seconds: ten thousand rules are read in some
_NOISE = "1000000/s"  # far above what the load asks for: limits are on, and not what is measured


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured: its port on loopback and the processes whose CPU time counts."""

    name: str
    port: int
    pids: tuple[int, ...]
    ready: float  # seconds from exec to the first accepted connection


@dataclass(frozen=True, slots=True)
class Ground:
    """What all stand on: a directory of the run, the service's port, where errors go."""

    directory: Path
    upstream: int
    log: IO[str]


@contextmanager
def upstream(delay: float, log: IO[str]) -> Iterator[int]:
    """The port of the service behind all, which answers after `delay` milliseconds."""
    command = [sys.executable, str(HERE / "upstream.py"), "--delay", str(delay)]
    with started(command, cores()[1], log) as process:
        yield announced_port(process)


def rules(count: int) -> str:
    """A policy of so many rules of the usual kinds: a user's unit and its paths. None means the load."""
    lines = ["policy:", "  rules:"]
    for number in range(count):
        lines += [
            f"    - name: rule {number}",
            f"      caller: {{unit: app-{number}.service, user: app{number % 50}}}",
            f"      paths: [meta-data/app-{number}/**, meta-data/ram/security-credentials/role-{number}]",
            "      legacy: upgrade",
        ]
    return "\n".join(lines) + "\n" if count else ""


@contextmanager
def imds_proxy(
    ground: Ground,
    name: str = "imds-proxy",
    *,
    attribution: str = "auto",
    rule_count: int = 100,
    cache: bool = True,
    program: Sequence[str] = (),
    workers: int = 1,
) -> Iterator[Target]:
    """The proxy as users run it: attribution, rules, limits, ledger, metrics are on. The daemon is the first
    of its processes."""
    own = ground.directory / f"{name.replace(' ', '-').replace(',', '')}-{attribution}"
    own.mkdir(parents=True, exist_ok=True)
    (metrics,) = free_ports(1)
    config = own / "config.yaml"
    config.write_text(
        f"state: {own}/state\nuser: root\nattribution: {attribution}\nworkers: {workers}\n"
        f"admin: {{socket: {own}/admin, metrics: 127.0.0.1:{metrics}}}\nledger: {{path: {own}/ledger.db}}\n"
        f"limits: {{hits: {_NOISE}, misses: {_NOISE}, upstream: {_NOISE}}}\n"
        f"cache: {{enabled: {str(cache).lower()}, static: 1d, slow: 5m, volatile: 5m, listing: 5m}}\n"
        + rules(rule_count)
    )
    command = [sys.executable, *(program or ("-m", "imds_proxy")), "run", "-c", str(config)]
    command += ["--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{ground.upstream}"]
    began = time.monotonic()
    with started(command, cores()[0], ground.log) as process:
        port, ready = announced_port(process), time.monotonic() - began
        # A nursery, which has one child for each worker.
        beside = family(process.pid, workers + 1) if workers > 1 else ()
        yield Target(name, port, (process.pid, *beside), ready)


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """So many idle processes meanwhile."""
    if not count:
        yield
        return
    words = [
        "sh",
        "-c",
        'i=0; while [ $i -lt "$0" ]; do sleep 600 & i=$((i+1)); done; echo; wait',
        str(count),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def nginx_configuration(directory: Path, upstream: int, port: int, cache: bool) -> str:
    """One worker, tuned: no logs, batches of accepts, upstream connections kept, the cache in memory."""
    caching = "proxy_cache items; proxy_cache_valid 200 1h; proxy_cache_key $uri;" if cache else ""
    return f"""daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid;
error_log {directory}/error.log crit; worker_rlimit_nofile 20000;
events {{ worker_connections 12000; multi_accept on; use epoll; }}
http {{
  access_log off; tcp_nodelay on; sendfile on; keepalive_requests 1000000000; keepalive_timeout 3600;
  open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  proxy_cache_path {directory}/cache keys_zone=items:4m use_temp_path=off;
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_set_header Host 100.100.100.200; {caching} }}
  }}
}}
"""


@contextmanager
def nginx(ground: Ground, *, cache: bool) -> Iterator[Target]:
    """nginx, which passes on or answers from its cache (kept in memory)."""
    name = "nginx proxy_cache" if cache else "nginx proxy_pass"
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else ground.directory
    own = shared / f"imds-proxy-bench-{os.getpid()}-{name.replace(' ', '-')}"
    own.mkdir(exist_ok=True)
    own.chmod(0o777)
    try:
        (port,) = free_ports(1)
        (own / "nginx.conf").write_text(nginx_configuration(own, ground.upstream, port, cache))
        command = [_found("nginx"), "-p", str(own), "-c", str(own / "nginx.conf")]
        with _listening(name, command, port, ground) as target:
            yield target
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextmanager
def haproxy(ground: Ground) -> Iterator[Target]:
    """haproxy with its small-object cache, one thread."""
    (port,) = free_ports(1)
    path = ground.directory / "haproxy.cfg"
    path.write_text(f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
cache items
  total-max-size 16
  max-age 3600
frontend callers
  bind 127.0.0.1:{port} backlog 4096
  http-request cache-use items
  http-response cache-store items
  default_backend service
backend service
  http-response set-header Cache-Control max-age=3600
  http-request set-header Host 100.100.100.200
  server service 127.0.0.1:{ground.upstream}
""")
    with _listening(
        "haproxy cache", [_found("haproxy"), "-f", str(path), "-db", "-q"], port, ground
    ) as target:
        yield target


@contextmanager
def aiohttp(ground: Ground) -> Iterator[Target]:
    """Thirty lines of aiohttp."""
    (port,) = free_ports(1)
    command = [str(PEERS / "python"), str(HERE / "aiohttp_proxy.py"), str(port), str(ground.upstream)]
    with _listening("aiohttp", command, port, ground) as target:
        yield target


@contextmanager
def mitmproxy(ground: Ground) -> Iterator[Target]:
    """mitmproxy as a reverse proxy, which prints nothing."""
    (port,) = free_ports(1)
    mode = ["--mode", f"reverse:http://127.0.0.1:{ground.upstream}", "--listen-host", "127.0.0.1"]
    command = [str(PEERS / "mitmdump"), *mode, "-p", str(port), "-q", "--set", "flow_detail=0"]
    with _listening("mitmproxy", command, port, ground) as target:
        yield target


@contextmanager
def floor(ground: Ground) -> Iterator[Target]:
    """Constant bytes from uvloop: no proxy in Python can cost less."""
    began = time.monotonic()
    with started([sys.executable, str(HERE / "floor.py")], cores()[0], ground.log) as process:
        yield Target("uvloop floor", announced_port(process), (process.pid,), time.monotonic() - began)


@contextmanager
def direct(ground: Ground) -> Iterator[Target]:
    """The service itself, without anything before it."""
    yield Target("service direct", ground.upstream, (), 0.0)


def upstream_calls(port: int) -> int:
    """How many calls the service has had."""
    with socket.create_connection(("127.0.0.1", port), 5) as wire:
        wire.sendall(b"GET /count HTTP/1.1\r\n\r\n")
        return int(wire.recv(4096).rpartition(b"\r\n\r\n")[2])


def versions() -> list[str]:
    """What the peers say of themselves."""
    said = []
    for command in (
        [_found("nginx"), "-v"],
        [_found("haproxy"), "-v"],
        [PEERS / "mitmdump", "--version"],
    ):
        try:
            done = subprocess.run(
                [*map(str, command)], capture_output=True, text=True, timeout=30, check=False
            )
            said.append((done.stdout + done.stderr).strip().splitlines()[0])
        except (OSError, IndexError):
            said.append(f"{command[0]}: not installed")
    return said


def _found(program: str) -> str:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") or program


@contextmanager
def _listening(name: str, command: Sequence[str], port: int, ground: Ground) -> Iterator[Target]:
    """A program told to listen on a port, once it does. Raises RuntimeError where it does not."""
    began = time.monotonic()
    with started(command, cores()[0], ground.log) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if process.poll() is not None or time.monotonic() - began > _READY:
                    raise RuntimeError(f"{name} did not start: {' '.join(map(str, command))}") from None
                time.sleep(0.005)
            else:
                break
        yield Target(name, port, (process.pid,), time.monotonic() - began)
