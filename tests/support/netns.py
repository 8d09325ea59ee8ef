"""Network namespaces for tests: this thread's own, and several joined by veth."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts, in a fresh network namespace whose `lo` is up. Needs root."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_CLONE_NEWNET))
        try:
            ip("link set lo up")
            yield
        finally:
            _checked(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def ip(words: str) -> str:
    """Runs `ip WORDS` here; what it prints."""
    return run("ip", *words.split())


def nft(commands: str, *options: str) -> str:
    """Runs nft commands here; what they print. `-s` leaves out what changes by itself."""
    return run("nft", *options, commands)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def everything() -> str:
    """All that a redirect could leave behind in this network namespace."""
    shown = [nft("list ruleset")]
    for family in ("-4", "-6"):
        shown += [ip(f"{family} {what}") for what in ("addr", "rule", "route show table all")]
    return "\n".join(shown)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
