"""From an accepted connection to its caller: what is asked, in which order, and what is believed.

Knows nothing of requests, event loops or threads' number: the server decides where each step runs.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.cgroups import path_membership
from imds_proxy.callers.conntrack import Conntrack
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.procfs import ProcessView, newest_first, pids_newest_first
from imds_proxy.callers.profile import (
    ProcessFacts,
    Surroundings,
    build_caller,
    identity_of,
    made_the_socket,
    read_facts,
)
from imds_proxy.callers.recent import RecentProcesses, SeenProcess, key_of
from imds_proxy.callers.redirect import endpoint_of, local_endpoint, original_destination
from imds_proxy.callers.sockdiag import SockDiag, SocketOwner
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity

# The origin of a caller whose uid is known and whose unit is not: it must never pass as "no unit".
PID_UNKNOWN = "pid-unknown"

_NEAR = 3  # descriptors looked at first, from that of the last socket on
_QUICK_DESCRIPTORS = 256  # looked at on the event loop: well under 1 ms
_SCAN_DESCRIPTORS = 65_536
_SCAN_SECONDS = 0.25  # a scan that takes longer gives up: the caller waits one second at most
_ATTEMPTS = 3  # a process may be in the middle of exec while it is looked at
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the kernel said at accept. `owner` is None for an unresolved caller, then `why` says the reason.

    `origin` is the peer's address as text, None when there was none. `accepted_ticks` is the time of the
    look-up in clock ticks since boot, the unit of a process's start time.
    """

    owner: SocketOwner | None
    origin: str | None
    accepted_ticks: int
    why: str | None = None


class Resolver:
    """Names the callers of accepted connections. `look_up` and `resolve` are quick, `scan` is for a thread.

    All methods are thread-safe. Without sock_diag every caller is unresolved, and says so.
    """

    def __init__(
        self, proc_root: str = "/proc", diag: SockDiag | None = None, tree: CgroupTree | None = None
    ) -> None:
        self._proc_root = proc_root
        self._diag = diag if diag is not None else _open_diag()
        self._conntrack = Conntrack()
        self._tree = tree if tree is not None else CgroupTree.find()
        self._around = Surroundings.of_host(UserNames(), HostFiles(), proc_root)
        self._recent = RecentProcesses()

    def watch(self, executables: frozenset[str], hashed: bool) -> None:
        """Tells which paths rules name and whether one asks for a SHA-256; profiles are made anew."""
        self._around = replace(self._around, files=HostFiles(executables, hashed))
        self._recent = RecentProcesses()

    def close(self) -> None:
        """Closes the netlink sockets and the cgroup mount."""
        if self._diag is not None:
            self._diag.close()
        self._conntrack.close()
        self._tree.close()

    def look_up(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> Ticket:
        """Asks the kernel who owns the other end, 10-20 µs. To be called at accept, before anything is read.

        `peer` is the peer's address as accept() gave it; without it the caller is unresolved.
        """
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND)
        client = endpoint_of(peer)
        if client is None:
            return Ticket(None, None, now, "no peer address")
        origin = client.host
        local = local_endpoint(accepted)
        if local is None:
            return Ticket(None, origin, now, "the connection is gone")
        if self._diag is None:
            return Ticket(None, origin, now, "sock_diag is not available")
        destination = original_destination(accepted, local) or local
        owner = self._diag.owner(client, destination)
        if owner is None and (ends := self._conntrack.original(client, local)) is not None:
            owner = self._diag.owner(*ends)  # the redirect gave the client another port
        if owner is None:
            return Ticket(None, origin, now, "no live socket on this machine has this connection")
        return Ticket(owner, origin, now)

    def resolve(self, ticket: Ticket) -> Caller | None:
        """The caller, if it is unresolved for good or a process seen before; None means: needs a scan."""
        owner = ticket.owner
        if owner is None:
            return _unresolved(ticket)
        seen = self._recent.of(key_of(owner))
        for process in seen:  # first where each had its last socket: one look for each
            caller = self._again(process, ticket, owner, None)
            if caller is not None:
                return caller
        for process in seen:
            caller = self._again(process, ticket, owner, _QUICK_DESCRIPTORS // len(seen))
            if caller is not None:
                return caller
        return None

    def scan(self, ticket: Ticket) -> Caller:
        """The caller, by looking through processes: those of the socket's cgroup, then all, newest first.

        Blocks for milliseconds, a quarter of a second at most.
        """
        owner = ticket.owner
        if owner is None:
            return _unresolved(ticket)
        deadline = time.monotonic() + _SCAN_SECONDS
        path = self._tree.path_of(owner.cgroup_id) if owner.cgroup_id is not None else None
        hidden = 0
        for pid in self._candidates(owner, path):
            if time.monotonic() > deadline:
                return self._pid_unknown(owner, path, "the look-up took too long")
            try:
                caller = self._try(pid, ticket, owner)
            except PermissionError:
                hidden += 1
                continue
            except OSError:
                continue
            if caller is not None:
                return caller
        why = "no process holds the socket"
        if hidden:
            why += " that may be looked at (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing)"
        return self._pid_unknown(owner, path, why)

    def process(self, pid: int) -> Caller:
        """A process as the caller that it would be, without a connection. Raises OSError."""
        with ProcessView(pid, self._proc_root) as view:
            found, uids = read_facts(view), view.uids()
            if found is None or uids is None:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            return build_caller(view, *found, SocketOwner(uids[1], 0, None), self._around)

    def holders(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> tuple[Caller, ...]:
        """Every process that holds the caller's end now, each under its own user: more than one after fork,
        or when the socket was passed on.

        Blocks, and looks at all processes: for a thread. Raises TimeoutError when there are too many to look
        at. Processes that we may not look at are passed over.
        """
        client, local = endpoint_of(peer), local_endpoint(accepted)
        if client is None or local is None or self._diag is None:
            return ()
        owner = self._diag.held(client, original_destination(accepted, local) or local)
        if owner is None and (ends := self._conntrack.original(client, local)) is not None:
            owner = self._diag.held(*ends)
        if owner is None:
            return ()  # nobody is left to read the answer
        deadline = time.monotonic() + _SCAN_SECONDS
        found = []
        for pid in pids_newest_first(self._proc_root):
            if time.monotonic() > deadline:
                raise TimeoutError("too many processes to look at")
            if holder := self._holder(pid, owner):
                found.append(holder)
        return tuple(found)

    def _holder(self, pid: int, owner: SocketOwner) -> Caller | None:
        """The process as a caller of its own, under its own user and place, if it holds the socket."""
        try:
            with ProcessView(pid, self._proc_root) as view:
                descriptor, _ = view.find_socket(owner.inode, _SCAN_DESCRIPTORS)
                found = read_facts(view) if descriptor is not None else None
                uids = view.uids() if found is not None else None
                if found is None or uids is None:
                    return None
                return build_caller(view, *found, replace(owner, uid=uids[1]), self._around)
        except OSError:
            return None

    def _candidates(self, owner: SocketOwner, path: str | None) -> Iterator[int]:
        seen: set[int] = set()
        if path is not None and owner.cgroup_id != self._tree.root_id:
            for pid in newest_first(self._tree.processes(path), self._proc_root):
                seen.add(pid)
                yield pid
        others: list[int] = []
        # A process seldom holds a socket that another user made: /proc shows the user for one system call.
        for pid in pids_newest_first(self._proc_root):
            if pid in seen:
                continue
            if self._uid_of(pid) == owner.uid:
                yield pid
            else:
                others.append(pid)
        yield from others

    def _uid_of(self, pid: int) -> int | None:
        try:
            return os.stat(f"{self._proc_root}/{pid}").st_uid  # noqa: PTH116 - hot in a scan
        except OSError:
            return None

    def _pid_unknown(self, owner: SocketOwner, path: str | None, why: str) -> Caller:
        """A live socket whose process was not found: its uid is a fact, and on v2 hosts so is its cgroup.

        Without a unit or container from there the identity is of its own kind (origin `pid-unknown`, with
        the cgroup's id where that says anything): it equals no identity of a process that was seen, so it
        can use nobody's tokens.
        """
        membership = path_membership(path) if path is not None else None
        if membership is not None and (membership.unit or membership.container):
            return Caller(identity_of(owner, membership), why_unresolved=why)
        origin = PID_UNKNOWN
        if owner.cgroup_id is not None and owner.cgroup_id != self._tree.root_id:
            origin += f"/{owner.cgroup_id}"
        return Caller(Identity(owner.uid, origin=origin), why_unresolved=why)

    def _again(
        self, process: SeenProcess, ticket: Ticket, owner: SocketOwner, limit: int | None
    ) -> Caller | None:
        """The caller of before, if this process holds the socket now and is what it was. With `limit` None
        only the descriptor of last time and the next few are looked at: a program that connects again is
        given the same one, or the next if it holds many connections."""
        if process.facts.stat.start_ticks > ticket.accepted_ticks:
            return None
        try:
            with ProcessView(process.pid, self._proc_root) as view:
                descriptor: int | None
                if limit is None:
                    near = range(process.descriptor, process.descriptor + _NEAR)
                    descriptor = next((one for one in near if view.holds(one, owner.inode)), None)
                else:
                    descriptor, _ = view.find_socket(owner.inode, limit)
                if descriptor is None:
                    return None
                if not _still(view, process.facts, descriptor, owner.inode):
                    return None
        except OSError:
            return None
        if self._recent.of(key_of(owner))[:1] != (process,) or descriptor != process.descriptor:
            self._recent.remember(key_of(owner), replace(process, descriptor=descriptor))
        return process.caller

    def _try(self, pid: int, ticket: Ticket, owner: SocketOwner) -> Caller | None:
        with ProcessView(pid, self._proc_root) as view:
            descriptor, _ = view.find_socket(owner.inode, _SCAN_DESCRIPTORS)
            if descriptor is None:
                return None
            found = self._settled(view, descriptor, owner)
            if found is None:
                return None
            facts, cmdline = found
            if facts.stat.start_ticks > ticket.accepted_ticks:
                return None  # it was born after its "own" connection: a reused pid, or an heir
            if not made_the_socket(facts, owner, self._tree):
                return None
            # From here on the process may end: what it was has been seen.
            caller = build_caller(view, facts, cmdline, owner, self._around)
        self._recent.remember(key_of(owner), SeenProcess(pid, descriptor, facts, caller))
        return caller

    def _settled(
        self, view: ProcessView, descriptor: int, owner: SocketOwner
    ) -> tuple[ProcessFacts, bytes] | None:
        """One program that held the socket before and after it was looked at; None if it is gone."""
        for _ in range(_ATTEMPTS):
            found = read_facts(view)
            if found is None:
                return None
            if _still(view, found[0], descriptor, owner.inode):
                return found
        return None


def _still(view: ProcessView, facts: ProcessFacts, descriptor: int, inode: int) -> bool:
    """Whether the process is what `facts` say and, after that was read, holds the socket."""
    now = read_facts(view)
    return now is not None and now[0] == facts and view.holds(descriptor, inode)


def _open_diag() -> SockDiag | None:
    try:
        return SockDiag()
    except OSError:
        return None


def _unresolved(ticket: Ticket) -> Caller:
    return Caller(Identity(None, origin=ticket.origin), why_unresolved=ticket.why)
