"""From an accepted connection to its caller: what is asked, in which order, and what is believed.

Knows nothing of requests, event loops or threads' number: the server decides where each step runs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from imds_proxy.callers.capture import (
    Captured,
    captured_by_note,
    captured_by_socket,
)
from imds_proxy.callers.cgroupfs import Cgroup, CgroupTree
from imds_proxy.callers.connects import ConnectNote, ConnectNotes
from imds_proxy.callers.familiar import FamiliarByNote, FamiliarBySocket
from imds_proxy.callers.holders import holders_of, process_caller
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.lookup import TICKS_PER_SECOND, ConnectionLookup
from imds_proxy.callers.podnet import PodNetworks
from imds_proxy.callers.procfs import ProcessView, last_pid, newest_first, pids_newest_first
from imds_proxy.callers.profile import PodNames, Surroundings, build_caller, made_the_socket
from imds_proxy.callers.recent import Habits, RecentProcesses, SeenProcess, key_of
from imds_proxy.callers.sockdiag import Endpoint, SockDiag, SocketOwner
from imds_proxy.callers.ticket import Ticket
from imds_proxy.callers.unseen import unseen_caller
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity

_QUICK_DESCRIPTORS = 256  # looked at on the event loop: well under 1 ms
_SCAN_DESCRIPTORS = 65_536
_NEWEST = 8  # pids below the last one given that are looked at first
_CAPTURES, _NEW_DESCRIPTORS = 3, 64  # of these processes and their descriptors; together well under 1 ms
_SCAN_SECONDS = 0.25  # a scan that takes longer gives up: the caller waits one second at most


class Resolver:
    """Names the callers of accepted connections. `look_up`, `resolve` and `capture` are quick, `scan` is for
    a thread.

    All methods are thread-safe. Without sock_diag every caller is unresolved, and says so. `networks` are
    those whose callers are named too, and `pods` what is known of them.
    """

    def __init__(
        self,
        proc_root: str = "/proc",
        diag: SockDiag | None = None,
        tree: CgroupTree | None = None,
        notes: ConnectNotes | None = None,
        networks: PodNetworks | None = None,
        pods: PodNames | None = None,
    ) -> None:
        diag = diag if diag is not None else _open_diag()
        self._lookup = ConnectionLookup(diag, notes, networks)
        self._proc_root, self._networks, self.notes = proc_root, networks, notes
        self._tree = tree if tree is not None else CgroupTree.find()
        self._around = Surroundings.of_host(UserNames(), HostFiles(), proc_root)
        if pods is not None:
            self._around = replace(self._around, pods=pods)
        self._recent = RecentProcesses()
        self.familiar: FamiliarByNote | FamiliarBySocket | None = None
        if notes is not None:
            self.familiar = FamiliarByNote(notes, lambda: self._recent)
        elif diag is not None:
            self.familiar = FamiliarBySocket(diag, lambda: self._recent)

    def watch(self, executables: frozenset[str], hashed: bool) -> None:
        """Tells which paths rules name and whether one asks for a SHA-256; profiles are made anew."""
        self._around = replace(self._around, files=HostFiles(executables, hashed))
        self.forget()

    def forget(self) -> None:
        """Processes that were callers are looked at anew."""
        self._recent = RecentProcesses()

    @property
    def follows_networks(self) -> bool:
        """Whether `tend` has anything to do."""
        return self._networks is not None

    def tend(self) -> None:
        """To be called every second, from a thread: keeps what is known of other networks true."""
        if self._networks is not None:
            self._networks.tend()

    def close(self) -> None:
        """Closes the netlink sockets and the cgroup mount."""
        self._lookup.close()
        self._recent = RecentProcesses()
        self._tree.close()

    def look_up(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> Ticket:
        """See `ConnectionLookup.look_up`."""
        return self._lookup.look_up(accepted, peer)

    def look_up_ends(self, client: Endpoint, destination: Endpoint) -> Ticket:
        """See `ConnectionLookup.look_up_ends`."""
        return self._lookup.look_up_ends(client, destination)

    def resolve(self, ticket: Ticket, limit: int = _QUICK_DESCRIPTORS) -> Caller | None:
        """The caller, if it is unresolved for good or a process seen before, of which `limit` descriptors are
        looked at; None means: needs a scan."""
        owner = ticket.owner
        if owner is None:
            return None if ticket.elsewhere else _unresolved(ticket)
        caller = self._seen(ticket, owner, limit)
        return _in_its_place(ticket, caller, self._around) if caller is not None else None

    def _seen(self, ticket: Ticket, owner: SocketOwner, limit: int) -> Caller | None:
        recent = self._recent  # `watch` puts another in its place
        seen = recent.of(key_of(owner))
        if ticket.note is not None:
            return _noted_again(recent, seen, ticket.note)
        # None that started after its "own" connection.
        seen = tuple(one for one in seen if one.facts.stat.start_ticks <= ticket.accepted_ticks)
        for process in seen:  # first where each had its last sockets
            if process.holding(owner.inode) is not None:
                return _again(recent, process, owner)
        for process in seen:
            with suppress(OSError):
                if process.search(owner.inode, limit // len(seen)) is not None:
                    return _again(recent, process, owner)
        return None

    def capture(self, ticket: Ticket) -> Captured | None:
        """The caller's process, if it is one of the newest: looked at before it can exit, 0.1 ms for each.

        What is captured is to be given to `scan`.
        """
        owner = ticket.owner
        if owner is None:
            return None
        if ticket.note is not None:
            with suppress(OSError):
                return self._capture(ticket.note.pid, ticket, owner, 0)
            return None
        last = last_pid(self._proc_root)
        tried = 0
        for pid in range(last, last - _NEWEST, -1):
            # A program that gave up root has a directory of root's until it runs another.
            if tried < _CAPTURES and self._uid_of(pid) in (owner.uid, 0):
                tried += 1
                with suppress(OSError):
                    # What has so many is not about to exit, and its newest is not among the first. (Linux 6.2
                    # tells how many there are; before, 0.)
                    if os.stat(f"{self._proc_root}/{pid}/fd").st_size > _NEW_DESCRIPTORS:  # noqa: PTH116
                        continue
                    if captured := self._capture(pid, ticket, owner, _NEW_DESCRIPTORS):
                        return captured
        return None

    def scan(self, ticket: Ticket, captured: Captured | None = None) -> Caller:
        """The caller: the captured process, else by looking through those of the socket's cgroup, then
        through all, newest first.

        Blocks for milliseconds, a quarter of a second at most.
        """
        ticket = self._lookup.located(ticket)
        owner = ticket.owner
        if owner is None:
            return _unresolved(ticket)
        # Of many calls that waited for a new daemon, the first look-up names the process for the others.
        if (known := self.resolve(ticket, _SCAN_DESCRIPTORS)) is not None:
            if captured is not None:
                captured.view.close()
            return known
        if captured is None and ticket.elsewhere:  # its owner may be known only now
            captured = self.capture(ticket)
        found = self._named(captured, ticket, owner) if captured else self._found(ticket, owner)
        return _in_its_place(ticket, found, self._around)

    def without_a_look(self, ticket: Ticket, why: str) -> Caller:
        """What the kernel said at accept is all: there was no time to look at processes."""
        if ticket.owner is None:
            return _unresolved(replace(ticket, why=why))
        owner = _effective(ticket, ticket.owner)
        return _in_its_place(ticket, self._unseen(ticket, owner, self._cgroup_of(owner), why), self._around)

    def _unseen(self, ticket: Ticket, owner: SocketOwner, cgroup: Cgroup | None, why: str) -> Caller:
        return unseen_caller(owner, cgroup, ticket.note, self._around.names, why)

    def _cgroup_of(self, owner: SocketOwner) -> Cgroup | None:
        return self._tree.cgroup(owner.cgroup_id) if owner.cgroup_id is not None else None

    def _found(self, ticket: Ticket, owner: SocketOwner) -> Caller:
        """The caller, by a look through all processes."""
        cgroup = self._cgroup_of(owner)  # first of all: it may be gone after the look
        if ticket.note is not None:  # it was not to be captured
            why = "the process has exited, or runs another program by now"
            return self._unseen(ticket, owner, cgroup, why)
        deadline = time.monotonic() + _SCAN_SECONDS
        hidden = 0
        for pid in self._candidates(owner, cgroup):
            if time.monotonic() > deadline:
                return self._unseen(ticket, owner, cgroup, "the look-up took too long")
            try:
                captured = self._capture(pid, ticket, owner, _SCAN_DESCRIPTORS)
            except PermissionError:
                hidden += 1
                continue
            except OSError:
                continue
            if captured is not None:
                return self._named(captured, ticket, owner)
        why = "no process holds the socket"
        if hidden:
            why += " that may be looked at (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing)"
        return self._unseen(ticket, owner, cgroup, why)

    def process(self, pid: int) -> Caller:
        """A process as the caller that it would be, without a connection. Raises OSError."""
        return process_caller(pid, self._around)

    def holders(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> tuple[Caller, ...]:
        """Every process that holds the caller's end now, each under its own user: more than one after fork,
        or when the socket was passed on.

        Blocks, and looks at all processes: for a thread. Raises TimeoutError when there are too many to look
        at. Processes that we may not look at are passed over.
        """
        owner = self._lookup.held(accepted, peer)
        if owner is None:
            return ()  # nobody is left to read the answer
        return holders_of(owner, self._around, time.monotonic() + _SCAN_SECONDS)

    def _candidates(self, owner: SocketOwner, cgroup: Cgroup | None) -> Iterator[int]:
        seen: set[int] = set()
        if cgroup is not None and cgroup.path is not None and not cgroup.is_root:
            for pid in newest_first(self._tree.processes(cgroup.path), self._proc_root):
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
        with suppress(OSError):
            return os.stat(f"{self._proc_root}/{pid}").st_uid  # noqa: PTH116 - hot in a scan
        return None

    def _capture(self, pid: int, ticket: Ticket, owner: SocketOwner, limit: int) -> Captured | None:
        """The process, if it is the one that made the connection. Raises OSError."""
        view = ProcessView(pid, self._proc_root)
        found: Captured | None = None
        try:
            if ticket.note is not None:
                found = captured_by_note(view, ticket.note)
                born_by = ticket.note.connected * TICKS_PER_SECOND
            else:
                found, born_by = captured_by_socket(view, owner.inode, limit), ticket.accepted_ticks
            # Born after its "own" connection: a reused pid, or an heir.
            if found is not None and (
                found.facts.stat.start_ticks > born_by or not made_the_socket(found.facts, owner, self._tree)
            ):
                found = None
            leader = view.leader() if found is not None else pid
            if leader not in (pid, None):  # None: it has ended since, and was what it was
                found = None
        finally:
            if found is None:
                view.close()
        return found if leader in (pid, None) else self._capture(leader, ticket, owner, limit)

    def _named(self, captured: Captured, ticket: Ticket, owner: SocketOwner) -> Caller:
        # The process may have ended since: what it was has been seen.
        view, key, known = captured.view, key_of(owner), True
        recent = self._recent  # before the surroundings: `watch` changes these first
        if ticket.note is not None:
            # The kernel notes the real uid; a socket is its process's effective one. Where these differ, the
            # socket tells, and the process is not remembered: it can be now this user, now that.
            known = len(set(view.uids() or ())) == 1
            owner = _effective(ticket, owner)
        caller = build_caller(view, captured.facts, captured.cmdline, owner, self._around)
        with suppress(OSError):
            if known:
                view.keep()
                seen = SeenProcess(view, captured.facts, caller, Habits(captured.descriptor))
                recent.remember(key, seen)
                if ticket.note is not None:
                    recent.note(ticket.note.signature, seen)
        return caller


def _open_diag() -> SockDiag | None:
    with suppress(OSError):
        return SockDiag()
    return None


def _noted_again(recent: RecentProcesses, seen: tuple[SeenProcess, ...], note: ConnectNote) -> Caller | None:
    """The caller of before, if the noted process is one that was seen, and is what it was."""
    for process in seen:
        if process.pid == note.pid and process.is_the_same():
            if note.thread == note.pid and process.facts.stat.comm != note.comm:
                return None
            recent.note(note.signature, process)
            return process.caller
    return None


def _again(recent: RecentProcesses, process: SeenProcess, owner: SocketOwner) -> Caller | None:
    """The caller of before, if the process that holds the socket is what it was."""
    if not process.is_the_same():
        recent.forget(key_of(owner), process)
        return None
    recent.remember(key_of(owner), process)
    return process.caller


def _unresolved(ticket: Ticket) -> Caller:
    return Caller(Identity(None, origin=ticket.origin), why_unresolved=ticket.why)


def _effective(ticket: Ticket, owner: SocketOwner) -> SocketOwner:
    """The owner with the uid that its socket has, where that can still be asked for."""
    alive = ticket.diag.owner(*ticket.ends) if ticket.diag and ticket.ends else None
    return replace(owner, uid=alive.uid) if alive else owner


def _in_its_place(ticket: Ticket, caller: Caller, around: Surroundings) -> Caller:
    """The caller, unless it called from an address that its pod does not have."""
    if not ticket.elsewhere or ticket.ends is None or caller.pod_uid is None:
        return caller
    if around.pods.may_have(caller.pod_uid, ticket.ends[0].address):
        return caller
    return _unresolved(replace(ticket, why="its pod does not have that address"))
