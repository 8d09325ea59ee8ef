"""The connections that are open, so that they can be cut from outside. Knows nothing of what they carry."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_STEP = 0.05  # how long a cut may go unnoticed by a connection that pauses, seconds


class Gone(Exception):
    """The other end has left, or the connection was cut from outside."""


class Connections:
    """The open connections of one emulator. Threads share it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._cut: set[socket.socket] = set()
        self.stopping = threading.Event()

    def add(self, connection: socket.socket) -> None:
        """A connection was accepted."""
        with self._changed:
            self._open.add(connection)

    def close(self, connection: socket.socket) -> None:
        """Closes one, whose thread is done with it: by FIN, or by RST if it was to be reset."""
        with self._changed:
            cut = connection in self._cut
        if not cut:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        connection.close()
        with self._changed:
            self._cut.discard(connection)
            self._open.discard(connection)
            self._changed.notify_all()

    def reset(self, connection: socket.socket) -> None:
        """Makes the close of one send RST, at once if its thread waits for bytes."""
        with contextlib.suppress(OSError), self._changed:
            if connection in self._open:
                self._cut.add(connection)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                connection.shutdown(socket.SHUT_RD)  # wakes a read; sends nothing

    def reset_all(self, timeout: float = 2.0) -> None:
        """Resets every connection that is open now, and waits (seconds) until they are gone."""
        with self._changed:
            doomed = set(self._open)
        for connection in doomed:
            self.reset(connection)
        self._wait_for(doomed, timeout)

    def close_all(self, timeout: float = 2.0) -> None:
        """Ends every connection for good, in whatever state, and waits (seconds) until they are gone."""
        self.stopping.set()
        with self._changed:
            doomed = set(self._open)
        for connection in doomed:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._wait_for(doomed, timeout)

    def pause(self, connection: socket.socket, seconds: float, *, half_closed_is_gone: bool = False) -> None:
        """Waits. Raises Gone as soon as the connection was cut or its client has left; a client that has
        only finished sending has left if `half_closed_is_gone`."""
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLRDHUP if half_closed_is_gone else 0)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            stopped = self.stopping.wait(min(left, _STEP))
            if stopped or connection in self._cut or poller.poll(0):
                raise Gone

    def __len__(self) -> int:
        return len(self._open)

    def _wait_for(self, doomed: set[socket.socket], timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (doomed & self._open), timeout)
