"""Every process that holds a socket, and any process as the caller that it would be.

Looks at all processes, so it is slow; knows nothing of how connections are accepted.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace

from imds_proxy.callers.procfs import ProcessView, pids_newest_first
from imds_proxy.callers.profile import Surroundings, build_caller, read_facts
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller

_MAX_DESCRIPTORS = 65_536  # looked at in one process


def process_caller(pid: int, around: Surroundings) -> Caller:
    """A process as the caller that it would be, without a connection. Raises OSError."""
    with ProcessView(pid, around.proc_root) as view:
        found, uids = read_facts(view), view.uids()
        if found is None or uids is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return build_caller(view, *found, SocketOwner(uids[1], 0, None), around)


def holders_of(owner: SocketOwner, around: Surroundings, deadline: float) -> tuple[Caller, ...]:
    """The processes that hold the socket, each under its own user and place.

    Those that we may not look at are passed over. Raises TimeoutError after `deadline` (time.monotonic).
    """
    found = []
    for pid in pids_newest_first(around.proc_root):
        if time.monotonic() > deadline:
            raise TimeoutError("too many processes to look at")
        if holder := _holder(pid, owner, around):
            found.append(holder)
    return tuple(found)


def _holder(pid: int, owner: SocketOwner, around: Surroundings) -> Caller | None:
    try:
        with ProcessView(pid, around.proc_root) as view:
            descriptor, _ = view.find_socket(owner.inode, _MAX_DESCRIPTORS)
            found = read_facts(view) if descriptor is not None else None
            uids = view.uids() if found is not None else None
            if found is None or uids is None:
                return None
            return build_caller(view, *found, replace(owner, uid=uids[1]), around)
    except OSError:
        return None
