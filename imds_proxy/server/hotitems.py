"""The names of items that were asked for most, kept over a restart: names only, no value and no query."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_SCHEMA = 1
_MOST = 64
_LARGEST = 262_144  # bytes


class HotItems:
    """A small file in the state directory. What cannot be read or written is done without."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "hot-items.json"
        self._written: list[str] | None = None

    def load(self) -> list[str]:
        """The paths of an earlier run; none where there is no such file, or it is not one of ours."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, encoding="utf-8") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return []
                found = json.loads(file.read(_LARGEST))
        except (OSError, ValueError, RecursionError):
            return []
        if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
            return []
        paths = found.get("paths")
        return [path for path in paths if isinstance(path, str)][:_MOST] if isinstance(paths, list) else []

    def save(self, paths: Sequence[str]) -> None:
        """Replaces the file, whole or not at all, where the paths are others than before. Raises OSError."""
        wanted = sorted(paths)[:_MOST]
        if wanted == self._written or not wanted:
            return
        temporary = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
            json.dump({"schema": _SCHEMA, "paths": wanted}, file)
        temporary.replace(self._path)
        self._written = wanted
