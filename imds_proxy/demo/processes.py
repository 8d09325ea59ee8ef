"""Child processes of the demo and the bench: waited for until they listen, ended by pid whatever happens."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_CHILDREN = Path("/proc/thread-self/children")
_LISTENING = re.compile(r"listening on http://(\S+)\n")


@contextmanager
def leaving_none() -> Iterator[None]:
    """Ends, whatever happens, every process that was begun inside, also one whose own parent has ended.

    An interrupt can come between a fork and the line that notes it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(_children())
    try:
        yield
    finally:
        while left := set(_children()) - before:
            for pid in left:
                os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
                os.waitpid(pid, 0)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in _CHILDREN.read_text(encoding="ascii").split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return []


@contextmanager
def ending(child: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """SIGTERM at the end, SIGKILL 10 s later; a child that has ended by itself is only reaped."""
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()


def announced(child: subprocess.Popen[str]) -> str:
    """The H:P of its `listening on http://H:P`. Raises RuntimeError, with its line, for any other."""
    line = child.stdout.readline() if child.stdout else ""
    match = _LISTENING.fullmatch(line)
    if match is None:
        raise RuntimeError(line)
    return match[1]


@contextmanager
def serving(words: tuple[str, ...], log: Path) -> Iterator[str]:
    """Runs `imds-proxy WORDS` and yields the H:P on which it listens; SIGTERM at the end.

    Raises RuntimeError, with what it said, when it does not come to listen.
    """
    with log.open("a", encoding="utf-8") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "imds_proxy", *words], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with ending(child):
        try:
            address = announced(child)
        except RuntimeError as error:
            child.wait(5)
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(f"imds-proxy {words[0]} did not start: {said or error}") from None
        yield address
