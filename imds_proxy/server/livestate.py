"""The admin command `state`: how the daemon is now, for the dashboard. Numbers and words of ours only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from imds_proxy.config import Config
from imds_proxy.server.build import Daemon
from imds_proxy.server.snapshot import snapshot_of

_REDIRECTS = {None: "not asked for", True: "in force", False: "DOWN"}


class LiveState:
    """`daemon` and `config` give what is in force now, `redirect` whether traffic is redirected (None: not
    asked for), `workers` how many of them serve (None: there are to be none)."""

    def __init__(
        self,
        daemon: Callable[[], Daemon],
        config: Callable[[], Config],
        redirect: Callable[[], bool | None],
        workers: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._daemon, self._config, self._redirect, self._workers = daemon, config, redirect, workers

    async def state(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """`facts` are words for people by their names; `ledger` is the file, None where there is none."""
        daemon, config, redirect = self._daemon(), self._config(), self._redirect()
        now = snapshot_of(daemon, redirect)
        budget = config.limits.upstream.per_second
        expiry = now.credentials_expire
        when = datetime.fromtimestamp(expiry, timezone.utc) if expiry is not None else None
        return {
            "ok": True,
            "host": socket.gethostname(),
            "ledger": str(config.ledger.below(config.state)) if config.ledger.enabled else None,
            "facts": {
                "mode": config.mode,
                "policy": config.policy.enforcement,
                "redirect": _REDIRECTS[redirect],
                "service": daemon.traffic.state,
                "upstream budget": f"{now.upstream_rate:.10g}/s of {budget:.10g}/s",
                "throttled calls": str(daemon.traffic.throttled),
                "credentials expire": f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "none are kept",
                "connections": str(now.connections),
                "unnamed callers": str(now.unresolved),
                **({"workers": workers} if (workers := self._workers()) is not None else {}),
            },
            "refusals": {slug: count for slug, count in now.refusals.items() if count},
        }
