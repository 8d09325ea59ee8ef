"""What variables in a process's environment do to its clients: off, misspelt, past the proxy. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imds_proxy.clients.catalogue import Catalogue
from imds_proxy.clients.evidence import Evidence
from imds_proxy.clients.findings import Finding
from imds_proxy.clients.naming import Named
from imds_proxy.clients.variables import (
    MISSPELT,
    PROXIES,
    SPARED,
    V1_DISABLE,
    V1_DISABLED,
    V2_DISABLED,
    V2_ENABLE,
)

_ADDRESS = "100.100.100.200"


def switch_findings(evidence: Evidence, clients: Sequence[Named]) -> Iterator[Finding]:
    """Switches that turn hardened mode off, or do not do what they were set for."""
    for setting in evidence.settings:
        if setting.name == V2_DISABLED and setting.value in ("true", "True"):
            yield Finding(
                "switched-off",
                f"{V2_DISABLED}=true is set: it makes ack-ram-tool's clients speak normal mode; remove it",
                f"remove {V2_DISABLED}",
            )
        elif setting.name == V1_DISABLED and setting.value != "true":
            yield from _not_true(setting.value, clients)
        elif setting.name == V1_DISABLE and _reads_misspelt(clients):
            continue
        elif setting.name in MISSPELT:
            yield Finding(
                "misspelt",
                f"{setting.name} is set, which nothing reads: {V1_DISABLED}=true is meant",
                f"set {V1_DISABLED}=true in place of {setting.name}",
            )
        elif setting.name == V2_ENABLE and not _opts_in(clients):
            yield Finding(
                "no-effect",
                f"{V2_ENABLE} is set: only a few older releases read it (credentials-go 1.3.4-1.3.7, "
                f"credentials-java 0.3.1-0.3.7, alibabacloud-credentials 0.3.3-0.3.5)",
            )


def proxy_findings(evidence: Evidence, known: Catalogue) -> Iterator[Finding]:
    """An HTTP proxy that takes SDK calls away, past any interception of the service's address."""
    names = [one.name for one in evidence.settings if one.name in PROXIES]
    if not names:
        return
    heedless = [
        tool.name
        for found in evidence.found
        for tool in known.found_as(found.ecosystem, found.name)
        if tool.ignores_no_proxy
    ]
    spared = any(one.name == SPARED for one in evidence.settings)
    if spared and not heedless:
        return
    set_ones = " and ".join(names)
    if heedless:
        why = f"{heedless[0]} sends its calls there whatever NO_PROXY says: unset it for this program"
        fix = "unset HTTP_PROXY for programs that use alibabacloud-credentials"
    else:
        why = f"clients that heed it send their calls there: add {_ADDRESS} to NO_PROXY"
        fix = f"add {_ADDRESS} to NO_PROXY"
    yield Finding(
        "http-proxy",
        f"{set_ones} is set, so credentials travel through that proxy, past imds-proxy: {why}",
        fix,
    )


def _not_true(value: str, clients: Sequence[Named]) -> Iterator[Finding]:
    if value == "True":
        # Only these compare letter by letter.
        strict = [one for one in clients if one.tool and one.tool.id == "go-credentials" and _before_1_4(one)]
        if strict:
            yield Finding(
                "switch-value",
                f"{V1_DISABLED} counts in lower case only here: true",
                f"set {V1_DISABLED}=true",
            )
        return
    if value == "false":
        yield Finding(
            "switched-off",
            f"{V1_DISABLED}=false is set: normal mode stays allowed",
            f"set {V1_DISABLED}=true",
        )
        return
    yield Finding(
        "switch-value",
        f"{V1_DISABLED} counts only as the word true; it is set to something else",
        f"set {V1_DISABLED}=true",
    )


def _before_1_4(one: Named) -> bool:
    return one.release is not None and one.release.numbers < (1, 4)


def _reads_misspelt(clients: Sequence[Named]) -> bool:
    return any(
        one.tool and one.tool.reads_misspelt and one.release and one.tool.reads_misspelt.holds(one.release)
        for one in clients
    )


def _opts_in(clients: Sequence[Named]) -> bool:
    """Whether one of them is a release that must be told to speak hardened mode."""
    return any(
        one.tool
        and one.release
        and one.tool.supports_since
        and one.tool.default_since
        and one.tool.supports_since <= one.release < one.tool.default_since
        for one in clients
    )
