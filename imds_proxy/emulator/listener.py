"""A listening TCP socket with a thread per connection. Knows nothing of what is said on it."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import sys
import threading
import time
from typing import Any

from imds_proxy.emulator.connections import Connections

_POLL = 0.02  # how long `stop` may wait for the accept loop, seconds


class CannotListen(OSError):
    """An address could not be listened on; says which and why."""

    def __init__(self, address: tuple[str, int], error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        super().__init__(error.errno, f"cannot listen on {authority(address)}: {reason}")

    def __str__(self) -> str:
        return str(self.args[1])


def authority(address: tuple[str, int]) -> str:
    """`H:P`, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A bound and listening socket. Raises CannotListen. Connections are kept in `connections`."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[socketserver.BaseRequestHandler],
        connections: Connections,
    ) -> None:
        self.connections = connections
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, handler)
        except OSError as error:
            raise CannotListen(address, error) from error
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Accepts connections, in a thread."""
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accepts no more, and closes the listening socket. Open connections stay."""
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()

    def accepting(self) -> bool:
        """Whether connections are taken out of the kernel's queue now."""
        return True

    def get_request(self) -> tuple[socket.socket, Any]:
        """Called by socketserver when a connection waits."""
        if not self.accepting():
            time.sleep(_POLL)
            raise OSError(errno.EAGAIN, "not now")
        return super().get_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called by socketserver for an accepted connection."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called by socketserver for what a handler raised: a client that left is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Called by socketserver when a connection's handler is done."""
        self.connections.close(request)
