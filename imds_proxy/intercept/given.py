"""A redirect that another process has put up, in a network namespace where this one may change nothing.

So it is in a pod: an init container with CAP_NET_ADMIN does `intercept up`, the sidecar has no such right.
"""

from __future__ import annotations

from imds_proxy.intercept.addresses import holder
from imds_proxy.intercept.redirect import InterceptError, Plan, RedirectStatus

_NOTE = "put up by another process; this one has no CAP_NET_ADMIN to look at it or to change it"


class GivenRedirect:
    """A `Redirect` that was there before. What tells of it is the listener's address on `lo`."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._up = plan, False

    def up(self) -> None:
        """See `Redirect.up`: looks whether it is there."""
        if not self._is_there():
            raise InterceptError(
                "no-capability",
                "no redirect stands here, and this process may make none",
                "an init container with CAP_NET_ADMIN is to run `imds-proxy intercept up` before",
            )
        self._up = True

    def renew(self) -> str | None:
        """See `Redirect.renew`."""
        if self._up and not self._is_there():
            raise InterceptError("gone", "the redirect that another process had put up is gone")
        return None

    def open_way(self) -> None:
        """See `Redirect.open_way`: it is not ours to open."""
        self.down()

    def down(self) -> None:
        """See `Redirect.down`: it is not ours to take down."""
        if self._up:
            raise InterceptError("no-capability", "this process may not take the redirect down", "ask root")

    def release(self) -> None:
        """See `Redirect.release`: it outlives us."""
        self._up = False

    def status(self) -> RedirectStatus:
        """See `Redirect.status`."""
        there = self._up and self._is_there()
        return RedirectStatus("nftables", there, "table" if there else None, notes=(_NOTE,) if there else ())

    def descriptors(self) -> dict[str, int]:
        """See `Redirect.descriptors`: none."""
        return {}

    def _is_there(self) -> bool:
        holders = [holder(listener.host) for listener in self._plan.listeners]
        return bool(holders) and all(found is not None and found.ours for found in holders)
