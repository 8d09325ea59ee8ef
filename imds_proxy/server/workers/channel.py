"""Messages between two processes of one daemon, each with a descriptor or without, in order, none lost.

Pickled: both ends are forks of one program, and nobody else can write to the socket pair.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

_LARGEST = 131072  # bytes of a message; what is sent is far below
_BATCH = 64  # messages in one turn of the loop
_RETRY = 0.01  # seconds, where the kernel has too many descriptors under way
_FOR_NOW = (errno.ENOBUFS, errno.ETOOMANYREFS)
_RIGHTS = socket.CMSG_LEN(array.array("i", [0]).itemsize)

Message = tuple[Any, ...]
"""A word, and what belongs to it."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def packed(message: Message) -> bytes:
    """Its bytes."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


class Channel:
    """One end. `heard` takes each message and the descriptor that came with it, which is then its own;
    `ended` is called once, when the other end is gone and all that it sent was heard."""

    def __init__(
        self,
        wire: socket.socket,
        heard: Callable[[Message, int | None], None],
        ended: Callable[[], None],
    ) -> None:
        """The socket becomes this channel's own. To be made where a loop runs."""
        wire.setblocking(False)
        self._wire, self._heard, self._ended = wire, heard, ended
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(_LARGEST)
        self._waiting: deque[tuple[bytes, int | None]] = deque()
        self._sent = asyncio.Event()
        self._sent.set()
        self._loop.add_reader(wire, self._readable)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Sends it, now or as soon as there is room. The descriptor is closed when it is sent, or cannot
        be."""
        data = packed(message)
        if self._waiting:
            self._waiting.append((data, descriptor))
        elif not self._send(data, descriptor):
            self._waiting.append((data, descriptor))
            self._sent.clear()
            self._loop.call_later(_RETRY, self._go_on)

    async def flushed(self) -> None:
        """Waits until all is sent."""
        await self._sent.wait()

    def close(self) -> None:
        """The end of it; what was not sent yet is not."""
        if self._wire.fileno() >= 0:
            self._loop.remove_reader(self._wire)
            self._wire.close()
        while self._waiting:
            _, descriptor = self._waiting.popleft()
            if descriptor is not None:
                os.close(descriptor)
        self._sent.set()

    def _send(self, data: bytes, descriptor: int | None) -> bool:
        numbers = array.array("i", [descriptor] if descriptor is not None else [])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
        try:
            self._wire.sendmsg([data], rights)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FOR_NOW:
                return False
            # The other end is gone, which `ended` says.
        if descriptor is not None:
            os.close(descriptor)
        return True

    def _go_on(self) -> None:
        while self._waiting:
            if not self._send(*self._waiting[0]):
                self._loop.call_later(_RETRY, self._go_on)
                return
            self._waiting.popleft()
        self._sent.set()

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if self._wire.fileno() < 0:
                return
            try:
                size, rights, _, _ = self._wire.recvmsg_into([self._buffer], _RIGHTS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                size, rights = 0, []
            if not size:
                self.close()
                self._ended()
                return
            descriptor = array.array("i", rights[0][2])[0] if rights else None
            self._heard(pickle.loads(memoryview(self._buffer)[:size]), descriptor)  # noqa: S301  see above
