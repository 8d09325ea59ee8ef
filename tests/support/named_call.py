"""One connection, named as the daemon names it: at accept, before it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution


class NamedCall(asyncio.Protocol):
    """Once all has come that `is_whole`, and the caller is known, `known` is told both; then it is closed."""

    def __init__(
        self,
        attribution: BoundedAttribution,
        is_whole: Callable[[bytes], bool],
        known: Callable[[bytes, Caller], None],
    ) -> None:
        self._attribution, self._is_whole, self._known = attribution, is_whole, known
        self._caller: Caller | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        caller = self._attribution.begin(
            transport.get_extra_info("socket"), transport.get_extra_info("peername")
        )
        if isinstance(caller, Caller):
            self._know(caller)
        else:
            task = asyncio.get_running_loop().create_task(caller)
            task.add_done_callback(lambda task: self._know(task.result()))

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._note()

    def eof_received(self) -> bool:
        return True  # the caller may have exited; it is to be named all the same

    def _know(self, caller: Caller) -> None:
        self._caller = caller
        self._note()

    def _note(self) -> None:
        if self._caller is not None and self._is_whole(self._data):
            self._known(self._data, self._caller)
            self._transport.close()
