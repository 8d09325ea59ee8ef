"""Checks of the cloud: is this ECS, which mode is the service in, are the vendor's programs new enough.

Knows nothing of the kernel.
"""

from __future__ import annotations

import re
from pathlib import Path

from imds_proxy.config import Address
from imds_proxy.doctor.exchange import Connection, ServiceError
from imds_proxy.doctor.finding import Finding
from imds_proxy.doctor.programs import ask_program, find_program
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.server.installed import AGENT, CLOUD_INIT

_LEAF = "/latest/meta-data/instance-id"


def on_ecs(sys: Path) -> bool:
    """What DMI says; clients decide by the same product name. `sys` is /sys."""
    try:
        name = (sys / "class/dmi/id/product_name").read_text(errors="replace")
    except OSError:
        return False
    return name.strip() == "Alibaba Cloud ECS"


def machine_type(sys: Path) -> Finding:
    """Whether this is an ECS instance."""
    if on_ecs(sys):
        return Finding("ecs", "ok", "this is an Alibaba Cloud ECS instance")
    remedy = "try `imds-proxy demo`, or name a service with --upstream"
    return Finding("ecs", "unknown", "this is not an ECS instance, or DMI does not say so", remedy)


def upstream_mode(upstream: Address) -> Finding:
    """Which mode the service is in, by one normal-mode read and one token; 1 s each."""
    slug = "upstream"
    try:
        with Connection(upstream) as connection:
            legacy = connection.ask("GET", _LEAF)
        with Connection(upstream) as connection:
            ttl = ((ALIBABA.ttl_header.decode(), "60"),)
            token = connection.ask("PUT", ALIBABA.token_path, ttl)
    except ServiceError as error:
        remedy = "is the service enabled (HttpEndpoint), is `upstream.address` right?"
        return Finding(slug, "bad", f"{upstream} does not answer: {error}", remedy)
    mode = {200: "optional (normal mode works too)", 403: "required (hardened mode only)"}.get(legacy.status)
    if token.status != 200:
        sentence = f"{upstream} gives no token (status {token.status}): normal-mode calls cannot be upgraded"
        return Finding(slug, "bad", sentence, "is the service enabled, and does the image support it?")
    if mode is None:
        sentence = f"{upstream} answers status {legacy.status} to a normal-mode read, and gives tokens"
        return Finding(slug, "unknown", sentence)
    return Finding(slug, "ok", f"{upstream} gives tokens; HttpTokens is {mode}")


def cloud_init() -> Finding:
    """Whether the installed cloud-init can boot with HttpTokens=required."""
    path = find_program("cloud-init")
    if path is None:
        return Finding("cloud-init", "ok", "cloud-init is not installed")
    try:
        _, output = ask_program(path, "--version")
    except OSError as error:
        return Finding("cloud-init", "unknown", f"{path} does not start: {error.strerror}")
    return judge_cloud_init(output)


def judge_cloud_init(output: str) -> Finding:
    """The finding for the output of `cloud-init --version`."""
    match = re.search(r"\b([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", output)
    if match is None:
        return Finding("cloud-init", "unknown", "cloud-init does not say its version")
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version >= CLOUD_INIT:
        return Finding("cloud-init", "ok", f"cloud-init {match[0]} speaks hardened mode")
    sentence = f"cloud-init {match[0]} is older than 23.2.2: it fails to boot with HttpTokens=required"
    return Finding("cloud-init", "warn", sentence, "upgrade cloud-init before the switch")


def agent(home: Path) -> Finding:
    """Whether the Cloud Assistant agent speaks hardened mode. `home` is its directory of versions."""
    slug = "cloud-assistant"
    if not home.is_dir():
        return Finding(slug, "ok", "the Cloud Assistant agent is not installed")
    versions = [
        tuple(int(part) for part in entry.name.split("."))
        for entry in home.iterdir()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){3}", entry.name)
    ]
    if not versions:
        return Finding(slug, "unknown", f"the Cloud Assistant agent in {home} does not say its version")
    newest = max(versions)
    shown = ".".join(str(part) for part in newest)
    if (newest[0], newest[2], newest[3]) >= AGENT:
        return Finding(slug, "ok", f"Cloud Assistant agent {shown} speaks hardened mode")
    sentence = f"Cloud Assistant agent {shown} is older than 2.2.3.857 (ARM: 2.4.3.857)"
    return Finding(slug, "warn", sentence, "upgrade the agent before HttpTokens=required")
