"""What the real service answers now to a plain GET and to one with a token, asked by the daemon: its own
calls are the only ones on this machine that do not meet the redirect."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from imds_proxy.errors import Refused
from imds_proxy.protocol.responses import Answer
from imds_proxy.server.build import Daemon


class DirectProbe:
    """The admin command `probe`. `daemon` gives the daemon as it is now."""

    def __init__(self, daemon: Callable[[], Daemon]) -> None:
        self._daemon = daemon

    async def probe(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """`v1` and `v2` are statuses (None: no answer); `failed` is how many requests callers lost so far
        for a reason of ours or the service's."""
        daemon = self._daemon()
        return {
            "ok": True,
            "v1": await _status(daemon.probe.plainly),
            "v2": await _status(daemon.probe.with_token),
            "failed": sum(
                count for (_, _, decision), count in daemon.events.totals().items() if decision == "failed"
            ),
        }


async def _status(ask: Callable[[], Coroutine[Any, Any, Answer]]) -> int | None:
    try:
        return (await ask()).status
    except Refused:
        return None
