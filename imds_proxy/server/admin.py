"""The admin socket: a Unix socket for root and the daemon's own user, one JSON line in, one out.

Knows commands by name only; what they do is given to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_LONGEST_LINE = 4096
_LONGEST_ANSWER = 30.0  # seconds
_PATIENCE = 5.0  # seconds for a command line to arrive
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

Command = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class AdminSocket:
    """Listens at `path`, mode 0600, and runs `commands` for who may: root, and who we are."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path, self._commands = path, commands
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begins to listen. Raises OSError; a socket that a living daemon listens at is not taken over."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self._path.exists():
            if not stat.S_ISSOCK(self._path.lstat().st_mode) or _answers(self._path):
                raise FileExistsError(17, "it is in use")
            self._path.unlink()
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LONGEST_LINE)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stops listening and removes the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader, writer)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, asyncio.TimeoutError):
            pass  # who asks so gets no answer; nothing was done
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
        line = await asyncio.wait_for(reader.readline(), _PATIENCE)  # first, else it never sees its answer
        if _uid_of(writer.get_extra_info("socket")) not in (0, os.geteuid()):
            return {"ok": False, "errors": ["only root and the daemon's own user may ask"]}
        asked = json.loads(line)
        name = asked.get("command") if isinstance(asked, dict) else None
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            return {"ok": False, "errors": [f"no such command; there is {', '.join(self._commands)}"]}
        return await command(asked)


def ask(path: Path, command: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the daemon at `path` answers within half a minute to a command with `more` keys.

    Raises OSError, ValueError for no answer.
    """
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(_LONGEST_ANSWER)
        wire.connect(str(path))
        wire.sendall(json.dumps({**(more or {}), "command": command}).encode() + b"\n")
        raw = b"".join(iter(lambda: wire.recv(65536), b""))
    answer = json.loads(raw)
    if not isinstance(answer, dict):
        raise ValueError("not an answer")
    return answer


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(1)
        return wire.connect_ex(str(path)) == 0


def _uid_of(connection: Any) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
