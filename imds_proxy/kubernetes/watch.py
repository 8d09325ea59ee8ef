"""Keeps a directory true: lists the pods of one node, then watches from there, and lists again when it must.

Bounded in memory and in how often it asks; what is known stays known while the API server cannot be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol
from urllib.parse import quote

from imds_proxy.kubernetes.client import ApiError, ApiServer
from imds_proxy.kubernetes.directory import PodDirectory
from imds_proxy.kubernetes.objects import PodRecord, read_event, read_page

_PAGE, _PAGES = 250, 64
_LARGEST = 64 * 1024 * 1024  # bytes of a page
_LONGEST = 4 * 1024 * 1024  # bytes of an event: etcd holds less in an object
_WATCH = 300  # seconds; then the server ends it and it is begun again
_SILENCE = 30.0  # seconds that a list may stand still; a watch may as long as it lasts
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0
_GONE = 410


class Reporter(Protocol):
    """Where sentences for people go."""

    def event(self, name: str, message: str, **facts: Any) -> None:
        """One event."""


class PodWatch:
    """`run` it as a task. `jitter` gives numbers from 0 to 1; `pause` is the first of the growing pauses
    after a failure, in seconds."""

    def __init__(
        self,
        server: ApiServer,
        node: str,
        directory: PodDirectory,
        log: Reporter,
        jitter: Callable[[], float],
        pause: float = _FIRST_PAUSE,
    ) -> None:
        self._server, self._directory, self._log = server, directory, log
        self._path = "/api/v1/pods?fieldSelector=" + quote(f"spec.nodeName={node}", safe="")
        self._jitter, self._first_pause = jitter, pause
        self._failing = False
        self._version = ""

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = self._first_pause
        while True:
            try:
                if not self._version:
                    self._version = await self._list()
                    self._succeeded()
                await self._watch()
                self._succeeded()
                pause = self._first_pause
            except (ApiError, ValueError) as error:
                if isinstance(error, ApiError) and error.status == _GONE:
                    self._version = ""  # too old: what happened since is not told any more
                else:
                    self._failed(str(error))
                pause = min(_LAST_PAUSE, pause * 2)
            await asyncio.sleep(pause * (0.5 + self._jitter() / 2))

    async def _list(self) -> str:
        """All pods, and the version to watch from. Raises ApiError, ValueError."""
        records: list[PodRecord] = []
        more = ""
        for _ in range(_PAGES):
            target = f"{self._path}&limit={_PAGE}" + (f"&continue={quote(more, safe='')}" if more else "")
            async with self._server.get(target, _SILENCE) as pieces:
                page = read_page(await _whole(pieces))
            records += page.records
            more = page.more
            if not more:
                self._directory.replace(records)
                return page.version
        raise ApiError("the list of pods has no end")

    async def _watch(self) -> None:
        """Until the server ends it. Raises as `_list` does."""
        target = f"{self._path}&watch=true&allowWatchBookmarks=true&timeoutSeconds={_WATCH}"
        target += f"&resourceVersion={quote(self._version, safe='')}"
        async with self._server.get(target, _WATCH + _SILENCE) as pieces:
            async for line in _lines(pieces):
                event = read_event(line)
                if event.kind == "ERROR":
                    raise ApiError(f"the watch ended with {event.code}", event.code)
                self._directory.take(event)
                self._version = event.version or self._version

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            self._log.event("pods-known", "the API server tells of pods again", pods=len(self._directory))

    def _failed(self, why: str) -> None:
        if not self._failing:  # once for a row of failures
            self._failing = True
            self._log.event("pods-unknown", "the API server does not tell of pods", detail=why)


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > _LARGEST:
            raise ApiError("the list of pods is too large")
    return bytes(found)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _LONGEST:
            raise ApiError("an event is too large")
    if rest.strip():
        yield rest
