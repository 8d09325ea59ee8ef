"""What was done to each instance, so that a cutover that was stopped goes on where it was.

One JSON line for each step, on disk before the next begins.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

# In their order; after SETTING nobody knows whether the API took it until the instance is looked at again.
SETTING, WATCHING, DONE, ROLLED_BACK, FAILED = "setting", "watching", "done", "rolled-back", "failed"
_STATES = (SETTING, WATCHING, DONE, ROLLED_BACK, FAILED)


class Journal:
    """The last state of each instance. Raises OSError, ValueError (with the line) for a file that is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._states: dict[str, str] = {}
        text = path.read_text(encoding="utf-8") if path is not None and path.exists() else ""
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not text.endswith("\n"):
                break  # cut while it was written: that step is taken again
            if line:
                self._states.update((_entry(line, number),))

    def state(self, instance: str) -> str | None:
        """What was last done to it, None for nothing."""
        return self._states.get(instance)

    def note(self, instance: str, state: str, why: str | None = None) -> None:
        """Writes a step down. Raises OSError."""
        self._states[instance] = state
        if self._path is None:
            return
        entry = {"time": round(time.time(), 3), "instance": instance, "state": state, "why": why}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(entry).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _entry(line: str, number: int) -> tuple[str, str]:
    try:
        found = json.loads(line)
        instance, state = found["instance"], found["state"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"line {number} is no entry of a cutover journal") from None
    if state not in _STATES or not isinstance(instance, str):
        raise ValueError(f"line {number}: state {state!r}; {', '.join(_STATES)} are allowed")
    return instance, state
