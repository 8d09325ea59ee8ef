"""How much an event matters, told to systemd's journal as it takes it: `<N>` before the line, sd-daemon(3).

Knows events by their slugs; how they are written is the log's matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TextIO

_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6  # syslog(3)
_PRIORITIES = {
    **dict.fromkeys(
        (
            "cannot-drop",
            "cannot-intercept",
            "cannot-listen",
            "cannot-observe",
            "internal",
            "no-such-user",
            "redirect-lost",
        ),
        _ERROR,
    ),
    **dict.fromkeys(
        (
            "few-open-files",
            "foreign-tokens-refused",
            "no-admin-socket",
            "no-ebpf",
            "no-metrics-port",
            "no-uvloop",
            "packets-lost",
            "redirect-lapsed",
            "redirect-put-back",
            "refused",
            "reload-refused",
            "runs-as-root",
            "stale",
            "state-unusable",
            "state-unwritten",
            "upstream-not-ready",
            "would-refuse",
        ),
        _WARNING,
    ),
    **dict.fromkeys(
        (
            "closed",
            "intercepting",
            "legacy-caller",
            "not-intercepting",
            "ready",
            "reloaded",
            "stopped",
            "taken-over",
        ),
        _NOTICE,
    ),
}


def prefixes(stream: TextIO, environment: Mapping[str, str]) -> Callable[[str], str]:
    """What to write to `stream` before the line of an event: nothing, unless it is the journal's."""
    if not _is_journal(stream, environment.get("JOURNAL_STREAM", "")):
        return lambda _: ""
    return lambda event: f"<{_PRIORITIES.get(event, _INFO)}>"


def _is_journal(stream: TextIO, named: str) -> bool:
    """systemd names the journal's socket by device and inode; a service may write elsewhere by now."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
