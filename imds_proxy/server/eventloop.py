"""Which event loop the daemon turns: uvloop, where it can be had."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from imds_proxy.server.log import Log


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop for a process that says nothing."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def loop_runner(log: Log) -> Callable[[Coroutine[Any, Any, int]], int]:
    """What runs the daemon to its end; without uvloop asyncio's own loop, said once."""
    try:
        import uvloop
    except ImportError:
        log.event("no-uvloop", "uvloop is not installed; serving with asyncio's own loop, which is slower")
        return asyncio.run
    if sys.version_info >= (3, 11):

        def run_with_uvloop(main: Coroutine[Any, Any, int]) -> int:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(main)

        return run_with_uvloop
    uvloop.install()
    return asyncio.run
