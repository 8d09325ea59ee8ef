"""`imds-proxy doctor`: what will work on this machine, what not, and what to do about it.

Ties the checks to the configuration and the command line; knows no check's insides.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from imds_proxy.config import Config, ConfigErrors, load_or_default, override
from imds_proxy.config_values import Address, printable
from imds_proxy.doctor import clients, cloud, interception, kubernetes, machine, network, sock_diag
from imds_proxy.doctor.exchange import ServiceError
from imds_proxy.doctor.finding import Finding, as_json, as_text
from imds_proxy.doctor.interview import interview
from imds_proxy.protocol.profile import ALIBABA

__all__ = ["add_arguments", "examine", "run"]

_SERVICES = tuple(Address(host, ALIBABA.port) for host in ALIBABA.addresses)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML)")
    parser.add_argument(
        "--upstream",
        metavar="H:P",
        help="address of the metadata service; it is then asked for its mode even where this is not ECS",
    )
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.add_argument(
        "--service",
        action="store_true",
        help="instead of the checks, ask the service at most 40 questions about its behaviour and write the "
        "answers, without secrets, to a file",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("imds-service-facts.json"),
        help="where --service writes (default: %(default)s)",
    )
    parser.add_argument(
        "--throttle-probe",
        action="store_true",
        help="with --service: also send up to 200 reads within 1 s; the service may throttle this instance",
    )


def run(args: argparse.Namespace) -> int:
    """0 where nothing is bad, 1 where something is, 2 for a wrong --upstream."""
    config, findings = _configuration(args.config)
    try:
        config = override(config, upstream=args.upstream)
    except ValueError as error:
        sys.stderr.write(f"imds-proxy doctor: {printable(str(error))}\n")
        return 2
    if args.service:
        return _ask_service(config.upstream.address, args.output, args.throttle_probe, sys.stdout, sys.stderr)
    findings += examine(config, ask_upstream=args.upstream is not None)
    sys.stdout.write(as_json(findings) if args.json else as_text(findings))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def examine(config: Config, *, ask_upstream: bool) -> list[Finding]:
    """All checks. The service is sent a request only on ECS or with `ask_upstream`."""
    return list(_examine(config, ask_upstream))


def _examine(config: Config, ask_upstream: bool) -> Iterator[Finding]:
    proc, system = Path("/proc"), Path("/sys")
    ecs = cloud.on_ecs(system)
    upstream = config.upstream.address
    yield machine.python()
    yield machine.uvloop()
    yield from machine.kernel(os.uname().release)
    yield from machine.privileges((proc / "self/status").read_text(encoding="utf-8", errors="replace"))
    yield machine.cgroups(system / "fs/cgroup")
    yield machine.user_namespaces()
    yield machine.systemd(Path("/run"))
    yield machine.state_directory(config.state)
    yield sock_diag.answers()
    yield network.nft()
    yield network.libnftables()
    yield interception.trial()
    yield interception.standing(config)
    yield interception.addresses(config.intercept)
    yield from interception.others(_SERVICES, proc)
    yield from interception.coverage(config, proc, Path("/etc/hosts"))
    for address in config.listen:
        yield network.listen_address(address, proc)
    yield network.route(upstream, expected=ecs or ask_upstream)
    yield network.open_connections((*_SERVICES, upstream), proc)
    yield network.proxy_variables(os.environ, ALIBABA.addresses[0])
    yield from clients.running_clients(proc)
    yield cloud.machine_type(system)
    if ecs or ask_upstream:
        yield cloud.upstream_mode(upstream)
    yield cloud.cloud_init()
    yield cloud.agent(Path("/usr/local/share/aliyun-assist"))
    yield kubernetes.pod_network(Path("/etc/cni/net.d"))
    yield kubernetes.components()


def _configuration(path: Path | None) -> tuple[Config, list[Finding]]:
    """The configuration that `run` would have, or the defaults and what is wrong."""
    try:
        return load_or_default(path), []
    except ConfigErrors as refused:
        more = len(refused.errors) - 1
        sentence = f"{refused.errors[0]}" + (f" (and {more} more)" if more else "")
        remedy = "imds-proxy check lists all; the defaults are examined here"
        return Config(), [Finding("configuration", "bad", sentence, remedy)]


def _ask_service(address: Address, output: Path, burst: bool, out: TextIO, err: TextIO) -> int:
    ipv6 = _SERVICES[1] if address == _SERVICES[0] else None
    try:
        facts = interview(address, ipv6=ipv6, burst=burst)
    except ServiceError as error:
        err.write(f"{address} cannot be reached: {printable(str(error))}\n")
        return 1
    try:
        _write(output, json.dumps(facts, indent=2) + "\n")
    except OSError as error:
        err.write(f"{printable(str(output))} cannot be written: {error.strerror}\n")
        return 1
    failed = sum(1 for answer in facts["answers"] if "error" in answer)
    asked = len(facts["answers"])
    out.write(f"{printable(str(output))}: {asked} questions to {address}, {failed} without an answer\n")
    return 0


def _write(path: Path, text: str) -> None:
    """For the owner's eyes first: what is handed on is the owner's decision."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
