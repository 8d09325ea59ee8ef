"""`imds-proxy demo`: real old and new clients, without and with the proxy, then who needs a change.

Two phases before a service that accepts hardened mode only. Knows no protocol.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from imds_proxy.demo.clients import (
    ROLE,
    SERVICE,
    Client,
    Missing,
    call,
    client_environment,
    make_clients,
    scripts_in,
)
from imds_proxy.demo.namespace import entry_command, take_address
from imds_proxy.demo.processes import leaving_none, serving
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.report import render_table

_EMULATE = ("emulate", "--http-tokens", "required", "--role", ROLE, "--listen")
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_TTL = "X-aliyun-ecs-metadata-token-ttl-seconds"
_TOKEN = "X-aliyun-ecs-metadata-token"  # noqa: S105  (a header's name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imds-proxy demo`."""
    parser.add_argument(
        "--no-namespace",
        action="store_true",
        help="on loopback ports, with the SDK's address patched from outside",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the SDKs are installed, once")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="keep the proxy's log, for `imds-proxy policy suggest`"
    )
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="the proxy's configuration, to try a policy"
    )
    parser.add_argument("--inside", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 when every client did as expected; 1 otherwise, or when something is missing."""
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    cache = (
        args.cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imds-proxy" / "demo"
    )
    try:
        with leaving_none():
            return _run(args, cache)
    except (Missing, RuntimeError, OSError) as error:
        print(f"imds-proxy demo: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace, cache: Path) -> int:
    if args.inside:
        take_address(SERVICE)
        return _play(args, cache, Path(args.inside), own_address=True)
    with tempfile.TemporaryDirectory(prefix="imds-proxy-demo-") as directory:
        make_clients(cache)
        if any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
            print("note: HTTP proxy variables are set; the clients run without them")
        words = None if args.no_namespace else entry_command()
        if words is None:
            print("on loopback ports, with the SDK's address patched from outside\n")
            return _play(args, cache, Path(directory), own_address=False)
        print(f"in a namespace of its own, where {SERVICE} is real; nothing of the host is touched\n")
        sys.stdout.flush()
        return _inside(args, words, cache, directory)


def _inside(args: argparse.Namespace, words: tuple[str, ...], cache: Path, directory: str) -> int:
    options = ["--cache", str(cache), "--inside", directory]
    for name in ("log", "config"):
        if value := getattr(args, name):
            options += [f"--{name}", str(value)]
    child = subprocess.Popen([*words, sys.executable, "-m", "imds_proxy", "demo", *options])
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _play(args: argparse.Namespace, cache: Path, directory: Path, own_address: bool) -> int:
    clients, scripts = make_clients(cache), scripts_in(cache)
    log, noise = directory / "proxy.log", directory / "emulator.log"
    # As under systemd: the proxy's directories where the configuration names none.
    os.environ |= {"STATE_DIRECTORY": str(directory / "state"), "RUNTIME_DIRECTORY": str(directory)}
    config = args.config or directory / "config.yaml"
    if not args.config:
        config.write_text("", encoding="utf-8")  # the defaults, whatever /etc has
    front = f"{SERVICE}:80" if own_address else "127.0.0.1:0"

    print("1. HttpTokens=required, without the proxy")
    with serving((*_EMULATE, front), noise) as service:
        place = None if own_address else service
        good = _phase(clients, scripts, place, _truth(service), with_proxy=False)

    print("\n2. the same service, behind imds-proxy")
    behind = ("run", "-c", str(config), "--listen", front, "--upstream")
    with (
        serving((*_EMULATE, "127.0.0.1:0"), noise) as service,
        serving((*behind, service), log) as proxy,
    ):
        place = None if own_address else proxy
        good &= _phase(clients, scripts, place, _truth(service), with_proxy=True)

    print("\n3. who still needs a change\n")
    if args.log:
        shutil.copy(log, args.log)
    with Merge() as merge:
        merge.add_ledger(directory / "state" / "ledger.db")
        print(render_table(merge))
        needing = sum(1 for _ in merge.callers(needing_change=True))
    missed = sum(not client.hardened for client in clients) > needing
    if missed:
        print("FAILED: a client that speaks normal mode is not in the table")
    return 0 if good and not missed else 1


def _phase(
    clients: tuple[Client, ...], scripts: Path, place: str | None, truth: str, *, with_proxy: bool
) -> bool:
    """Calls every client; True when each obtained the right value, or was refused where it had to be."""
    environment = client_environment(scripts, place)
    good = True
    for client in clients:
        obtained, said = call(client, environment, place)
        expected = with_proxy or client.hardened
        right = obtained and truth in said
        if right and expected:
            shown = f"ok       obtained {truth[:10]}…"
        elif not obtained and not expected:
            shown = f"refused  as expected: {_short(said)}"
        else:
            good = False
            shown = f"FAILED   {'wrong value' if obtained else _short(said)}"
        print(f"   {client.name:<34} {shown}", flush=True)
    return good


def _truth(service: str) -> str:
    """The AccessKeyId that the emulator gives now."""
    connection = http.client.HTTPConnection(service, timeout=5)
    try:
        connection.request("PUT", "/latest/api/token", headers={_TTL: "60"})
        token = connection.getresponse().read().decode()
        path = f"/latest/meta-data/ram/security-credentials/{ROLE}"
        connection.request("GET", path, headers={_TOKEN: token})
        return str(json.loads(connection.getresponse().read())["AccessKeyId"])
    finally:
        connection.close()


def _short(said: str) -> str:
    code = re.search(r"\b403\b|Forbidden", said)
    last = said.splitlines()[-1] if said else "nothing was said"
    return "HTTP 403" if code else "".join(c if c.isprintable() else "?" for c in last)[:60]


def _interrupt(number: int, frame: object) -> None:
    # Once: a second one would end the cleaning up that the first began.
    for each in _INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
