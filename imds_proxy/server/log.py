"""The log: one JSON line an event on stderr, a human form on a terminal.

Written by a thread of its own: a stalled reader of stderr never stalls a caller.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import Any, TextIO

from imds_proxy.server.journal import prefixes

_QUEUE = 10_000  # lines; beyond it lines are dropped and counted
_TEXT_LIMIT = 2000


class Log:
    """Events go in from any thread; strings are escaped and bounded, a line stays a line."""

    def __init__(self, form: str = "auto", stream: TextIO | None = None) -> None:
        """`form` is auto, json or text; auto is text on a terminal."""
        self._stream = stream or sys.stderr
        self._json = form == "json" or (form == "auto" and not self._stream.isatty())
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE)
        self._dropped = 0
        self._prefix = prefixes(self._stream, os.environ)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def event(self, name: str, message: str, **facts: Any) -> None:
        """Logs one event: `name` is a slug, `message` a sentence, facts are JSON values (None left out)."""
        facts = {key: _bounded(value) for key, value in facts.items() if value is not None}
        if self._dropped:
            facts["dropped_lines"], self._dropped = self._dropped, 0
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json.dumps({"time": stamp, "event": name, "message": _bounded(message), **facts})
        else:
            # JSON strings are ASCII with every control character escaped: inert on a terminal.
            said = " ".join(f"{key}={json.dumps(value)}" for key, value in facts.items())
            line = f"{stamp} {name}: {json.dumps(_bounded(message))[1:-1]} {said}".rstrip()
        try:
            self._lines.put_nowait(self._prefix(name) + line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout: float = 2.0) -> None:
        """Writes what is queued, waiting at most `timeout` seconds for a stalled reader."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += 1  # a full disk or a closed pipe must not end the daemon


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _TEXT_LIMIT:
        return value[:_TEXT_LIMIT] + "…"
    return value
