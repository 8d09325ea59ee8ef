"""Which event loop the daemon and its workers turn: uvloop, where it can be had."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from imds_proxy.server.log import Log

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T], log: Log | None = None) -> T:
    """Runs it to its end. Without uvloop that is done by asyncio's own loop, which `log` is told: one of the
    daemon's processes gives it."""
    try:
        import uvloop
    except ImportError:
        if log is not None:
            log.event(
                "no-uvloop", "uvloop is not installed; serving with asyncio's own loop, which is slower"
            )
        return asyncio.run(main)
    result: T = uvloop.run(main)
    return result
