"""What a process is, caught before it can exit or become another: facts that were true of one program.

Knows nothing of how the process was found; profiles are made later, from what is captured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imds_proxy.callers.connects import ConnectNote
from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.profile import ProcessFacts, read_facts

_ATTEMPTS = 3  # a process may be in the middle of exec while it is looked at


@dataclass(frozen=True, slots=True)
class Captured:
    """A caller's process and what it was. The view is open: whoever uses this up closes it."""

    view: ProcessView
    descriptor: int
    facts: ProcessFacts
    cmdline: bytes


def captured_by_socket(view: ProcessView, inode: int, limit: int) -> Captured | None:
    """The process, if it holds the socket and did while it was one program; `limit` descriptors are looked
    at. Raises OSError."""
    descriptor, _ = view.find_socket(inode, limit)
    if descriptor is None:
        return None
    return _settled(view, descriptor, lambda _: view.holds(descriptor, inode))


def captured_by_note(view: ProcessView, note: ConnectNote) -> Captured | None:
    """The process, if it is still the program that the kernel noted."""
    return _settled(view, 0, lambda facts: is_what_was_noted(view, note, facts))


def is_what_was_noted(view: ProcessView, note: ConnectNote, facts: ProcessFacts) -> bool:
    """Whether the thread that connected still has its name, as far as that can be told: exec changes it."""
    if note.thread == note.pid:
        return facts.stat.comm == note.comm
    comm = view.thread_comm(note.thread)
    return comm is None or comm == note.comm


def _settled(view: ProcessView, descriptor: int, is_it: Callable[[ProcessFacts], bool]) -> Captured | None:
    for _ in range(_ATTEMPTS):
        found = read_facts(view)
        if found is None or not is_it(found[0]):
            return None
        again = read_facts(view)
        # One that exits now was what it was: it can become nothing else.
        if again is None or again[0].executable is None or again[0] == found[0]:
            return Captured(view, descriptor, *found)
    return None
