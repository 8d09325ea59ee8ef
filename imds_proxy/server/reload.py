"""Another configuration while the daemon runs: read, judged and put in force whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from imds_proxy.config import Config, ConfigErrors
from imds_proxy.policy.decision import Policy
from imds_proxy.server.build import Daemon, apply, needs_restart, policy_of
from imds_proxy.server.log import Log

_MAX_LOGGED = 20  # errors of one refused file


def _nothing() -> None:
    """Nobody else is to be told."""


class Reloader:
    """Holds the daemon as it is now. `read` reads the configuration again; it may block. `applied` is called
    in the same turn in which another one comes into force.

    One reload at a time; what is asked for meanwhile comes after it, so the last file written wins.
    """

    def __init__(self, daemon: Daemon, config: Config, read: Callable[[], Config], log: Log) -> None:
        self.daemon, self.config = daemon, config
        self._read, self._log = read, log
        self.applied: Callable[[], None] = _nothing
        self._lock = asyncio.Lock()

    async def reload(self) -> dict[str, Any]:
        """`ok`, `errors` (then the old configuration stays in force), `restart` (keys that need one)."""
        async with self._lock:
            try:
                # A large file takes longer to read and to make rules of than a caller should wait.
                config, policy = await asyncio.get_running_loop().run_in_executor(None, self._judge)
            except ConfigErrors as refused:
                return self._refused([str(error) for error in refused.errors])
            except ValueError as error:
                return self._refused([str(error)])
            self.daemon = apply(self.daemon, config, policy)
            self.applied()
            restart = needs_restart(self.config, config)
            self.config = config
            self._log.event(
                "reloaded",
                "the configuration was read again and is in force",
                needs_restart=restart or None,
                mode=config.mode,
                enforcement=config.policy.enforcement,
                rules=len(config.policy.rules),
            )
            return {"ok": True, "errors": [], "restart": restart}

    def _judge(self) -> tuple[Config, Policy]:
        config = self._read()
        return config, policy_of(config)

    def _refused(self, errors: list[str]) -> dict[str, Any]:
        self._log.event(
            "reload-refused",
            "the configuration was refused; the old one stays in force",
            errors=errors[:_MAX_LOGGED],
        )
        return {"ok": False, "errors": errors, "restart": []}
