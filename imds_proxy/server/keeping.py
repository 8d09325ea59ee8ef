"""The redirect over the daemon's lives: systemd holds what keeps it in force until the next run has its own.

Knows descriptors by name only; what hangs on them is the method's matter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from imds_proxy.intercept.redirect import RENEWAL, Redirect
from imds_proxy.server.adoption import KEPT as LISTENERS
from imds_proxy.server.fdstore import DescriptorStore

_KEPT = "redirect-"


class RedirectKeeper:
    """What an earlier run left of its redirect, and what this one leaves."""

    def __init__(self, store: DescriptorStore) -> None:
        self._store = store
        self._left: dict[str, int] = {}
        for name in store.left(_KEPT):
            self._left[name.removeprefix(_KEPT)], *others = store.take(name)
            for other in others:
                os.close(other)
        self._redirect: Redirect | None = None
        self._kept: Mapping[str, int] = dict.fromkeys(self._left, -1)

    def take(self, prefix: str) -> dict[str, int]:
        """What an earlier run left by names that begin so: the caller's from now on."""
        return {name: self._left.pop(name) for name in list(self._left) if name.startswith(prefix)}

    async def watch(self, redirect: Callable[[], Redirect | None]) -> None:
        """Keeps what `redirect` gives, which changes when it is asked for, taken down, or put back."""
        while True:
            await asyncio.sleep(RENEWAL)
            self.keep(redirect())

    def keep(self, redirect: Redirect | None) -> None:
        """Lets systemd hold what keeps `redirect` in force (None: there is none), and nothing else.

        To be called when it is: an earlier run's own, which bridged the time between, ends with this.
        """
        descriptors = redirect.descriptors() if redirect is not None else {}
        if redirect is self._redirect and descriptors == self._kept:
            return
        for name in self._kept:
            self._store.drop(_KEPT + name)
        for name, number in descriptors.items():
            # systemd polls what it holds: an eBPF map says that it failed, and is none the worse for it.
            self._store.keep(_KEPT + name, [number], polled=not name.startswith("ebpf-"))
        # A unit that is given up loses all of it. Callers that wait in the listeners' queues are told by a
        # reset, which finds its way to them while a redirect by NAT still stands.
        self._store.close_first(LISTENERS)
        self._redirect, self._kept = redirect, dict(descriptors)
        while self._left:
            os.close(self._left.popitem()[1])
