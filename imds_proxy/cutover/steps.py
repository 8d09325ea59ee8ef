"""What stands against a cutover, and whether it held. Pure: facts in, sentences out.

Knows nothing of the cloud's API, of sockets or of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_REFUSED = (401, 403)  # what the service says to a plain GET where tokens are required (provider's page)


@dataclass(frozen=True, slots=True)
class Instance:
    """What the API says of an instance. `imds_support` is of its image: `v2`, `v1`, or None for not said."""

    id: str
    http_tokens: str | None
    http_endpoint: str | None
    os_type: str | None
    image: str | None
    imds_support: str | None
    private_ip: str | None = None

    @property
    def is_required(self) -> bool:
        """Whether there is nothing to do."""
        return self.http_tokens == "required"


@dataclass(frozen=True, slots=True)
class Probe:
    """What the real service answered: to a plain GET and to one with a token (HTTP statuses; None: it could
    not be asked). `failed` counts what callers did not get for a reason that is not theirs."""

    v1: int | None
    v2: int | None
    failed: int = 0

    @property
    def is_hardened(self) -> bool:
        """Whether plain GETs are refused and those with a token answered."""
        return self.v1 in _REFUSED and self.v2 == 200

    def __str__(self) -> str:
        return f"a plain GET gives {self.v1 or 'no answer'}, one with a token {self.v2 or 'no answer'}"


def objections(instance: Instance, verdict: str | None) -> Iterator[str]:
    """Why `HttpTokens=required` is not to be set; `verdict` is READY, NOT READY, UNKNOWN, or None where no
    history was given for it."""
    if instance.http_endpoint == "disabled":
        yield "its metadata service is disabled (HttpEndpoint)"
    if (instance.os_type or "").lower() == "windows":
        yield "it runs Windows, whose start-up needs normal mode"
    if instance.imds_support is None:
        yield f"its image {instance.image or '(unknown)'} does not say that it supports hardened mode"
    elif instance.imds_support != "v2":
        yield f"its image {instance.image} supports {instance.imds_support} only (ImdsSupport)"
    if verdict is None:
        yield "there is no verdict of `imds-proxy ready` for it"
    elif verdict != "READY":
        yield f"`imds-proxy ready` says {verdict}"


def broken_by(before: Probe, now: Probe, tolerated: int) -> str | None:
    """What a cutover broke, in a sentence; None while it holds. `tolerated`: failures of callers since."""
    if not now.is_hardened:
        return str(now)
    failed = now.failed - before.failed
    if failed > tolerated:
        return f"{failed} requests of callers failed since, {tolerated} are tolerated"
    return None
