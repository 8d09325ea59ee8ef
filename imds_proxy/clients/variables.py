"""Variables of a process's environment that decide how its clients speak. Pure.

Only names on closed lists are looked at, and of a value only what it means is kept. Knows no tool.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping

from imds_proxy.clients.evidence import Setting

V1_DISABLED = "ALIBABA_CLOUD_IMDSV1_DISABLED"
V1_DISABLE = "ALIBABA_CLOUD_IMDSV1_DISABLE"  # read by a few releases, a slip for all others
V2_ENABLE = "ALIBABA_CLOUD_ECS_IMDSV2_ENABLE"  # of the opt-in releases
V2_DISABLED = "ALIBABA_CLOUD_IMDSV2_DISABLED"  # of ack-ram-tool: turns hardened mode off
MISSPELT = frozenset(
    {
        V1_DISABLE,
        "ALIBABA_CLOUD_IMDS_V1_DISABLED",
        "ALIBABA_CLOUD_ECS_IMDSV1_DISABLED",
        "ALIBABA_CLOUD_DISABLE_IMDSV1",
        "ALIBABA_CLOUD_IMDSV2_ENABLED",
        "ALIBABA_CLOUD_IMDSV2_ENABLE",
        "ALIBABA_CLOUD_ECS_IMDSV2_ENABLED",
        "ALIBABACLOUD_IMDSV1_DISABLED",
        "ALICLOUD_IMDSV1_DISABLED",
        "ALIYUN_IMDSV1_DISABLED",
        "ALIBABA_CLOUD_IMDSV1_DISABLD",
        "AWS_EC2_METADATA_V1_DISABLED",
    }
)
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
ECS_METADATA = "ALIBABA_CLOUD_ECS_METADATA"  # a role's name: some clients call where it is set
_SWITCHES = frozenset({V1_DISABLED, V2_ENABLE, V2_DISABLED}) | MISSPELT
_NO_PROXY = ("NO_PROXY", "no_proxy")
_PLACES = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "HOME", "NODE_PATH")
_SERVICE = "100.100.100.200"
SPARED = "no-proxy"  # the name of the setting that says that NO_PROXY spares the service


def settings_of(environ: bytes) -> tuple[Setting, ...]:
    """The switches and HTTP proxies that are set, in the order of their names."""
    wanted = {*_SWITCHES, *PROXIES, *_NO_PROXY, ECS_METADATA}
    values = _named(environ, wanted)
    found = [Setting(name, _meaning(values[name])) for name in sorted(_SWITCHES & values.keys())]
    if values.get(ECS_METADATA):
        found.append(Setting(ECS_METADATA, "set"))
    proxies = [name for name in PROXIES if values.get(name)]
    found += [Setting(name, "set") for name in proxies]
    exceptions = [values[name] for name in _NO_PROXY if values.get(name)]
    # Clients differ in which of the two they read: each that is set must cover the service.
    if proxies and exceptions and all(covers(text) for text in exceptions):
        found.append(Setting(SPARED, "set"))
    return tuple(found)


def places_of(environ: bytes) -> Mapping[str, str]:
    """The variables that say where packages are looked for. Paths; not to be logged."""
    return _named(environ, set(_PLACES))


def _named(environ: bytes, wanted: set[str]) -> dict[str, str]:
    found = {}
    for entry in environ.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and len(name) <= 40 and (text := os.fsdecode(name)) in wanted and text not in found:
            found[text] = os.fsdecode(value[:4096])
    return found


def _meaning(value: str) -> str:
    if value in ("true", "false"):
        return value
    return {"true": "True", "false": "false"}.get(value.lower(), "other")


def covers(no_proxy: str, service: str = _SERVICE) -> bool:
    """Whether a NO_PROXY spares an address, in the forms that clients read."""
    ip = ipaddress.ip_address(service)
    for entry in re.split(r"[,\s]+", no_proxy):
        if entry in {"*", service, f"{service}:80"}:
            return True
        try:
            if "/" in entry and ip in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
