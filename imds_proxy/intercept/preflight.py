"""What must be true before a redirect is put up. Asks the kernel, changes nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from imds_proxy.config_values import Address
from imds_proxy.intercept.redirect import InterceptError

_SO_MARK = 36  # asm-generic/socket.h


def check_route(services: Sequence[Address]) -> None:
    """Raises InterceptError where there is a route to none of the services: a connect would fail before any
    redirect sees it. A connected UDP socket asks without a packet."""
    why = ""
    for service in services:
        family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((service.host, service.port))
            return
        except OSError as error:
            why = why or f"no route to {service.host}: {error.strerror}"
    raise InterceptError("no-route", why, f"this machine needs one: ip route get {services[0].host}")


def check_mark(mark: int, exempt_uid: int) -> int | None:
    """The mark for the proxy's own calls; None where its user is exempt and it may set no mark.

    Raises InterceptError where neither keeps its calls from coming back to it: a loop.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        try:
            trial.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        except PermissionError:
            if exempt_uid and exempt_uid == os.geteuid():
                return None
            raise InterceptError(
                "loop",
                "the proxy's own calls to the service would be redirected to itself",
                "it needs CAP_NET_ADMIN for its mark, or intercept.exempt_uid and to run as that user",
            ) from None
    return mark


def cloud_init_is_busy(directory: Path) -> bool:
    """Whether cloud-init is on and has not ended its last stage; `directory` is /run/cloud-init."""
    return (directory / "enabled").exists() and not (directory / "result.json").exists()
