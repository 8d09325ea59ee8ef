"""The connections that go past a redirect: open to the service since before it was in force."""

from __future__ import annotations

import errno
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from imds_proxy.config_values import Address
from imds_proxy.intercept.opensockets import OpenConnection, destroy, open_connections, programs
from imds_proxy.intercept.redirect import InterceptError


def passing(services: Collection[Address], redirected: Collection[Address]) -> list[OpenConnection]:
    """All that are open, but for this process's own and the `redirected` ones, given by the callers' ends.

    Raises OSError.
    """
    own = _own_inodes()
    return [
        one
        for one in open_connections(services)
        if one.local not in redirected and one.inode not in own and one.inode
    ]


def described(connections: Collection[OpenConnection]) -> list[dict[str, Any]]:
    """As JSON values: `local`, `remote`, `uid`, and `pid` and `exe` where they may be seen."""
    holders = programs({one.inode for one in connections})
    return [
        {
            "local": str(one.local),
            "remote": str(one.remote),
            "uid": one.uid,
            "pid": holders[one.inode][0] if one.inode in holders else None,
            "exe": holders[one.inode][1] if one.inode in holders else None,
        }
        for one in connections
    ]


def close(connections: list[OpenConnection]) -> int:
    """Closes them, so that their programs connect again, through the redirect. Raises InterceptError."""
    try:
        return destroy(connections)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            why = "this kernel closes no connections of others (CONFIG_INET_DIAG_DESTROY)"
        elif error.errno == errno.EPERM:
            why = "closing connections of others needs CAP_NET_ADMIN"
        else:
            why = f"the kernel closes no connections: {error.strerror}"
        raise InterceptError("no-takeover", why, "restart their programs instead") from None


def _own_inodes() -> set[int]:
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(descriptor.stat().st_ino)
    return found
