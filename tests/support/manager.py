"""The other end of sd_notify: what a service manager hears, and the descriptors that it is given."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Manager:
    """`address` is for NOTIFY_SOCKET; `held` are the descriptors it holds, by name."""

    address: str
    wire: socket.socket
    held: dict[str, list[int]] = field(default_factory=dict)

    def heard(self) -> list[str]:
        """The messages so far, each with its lines."""
        messages: list[str] = []
        while True:
            try:
                data, ancillary, _, _ = self.wire.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
            except BlockingIOError:
                return messages
            message = data.decode()
            descriptors = array.array("i")
            for _, _, raw in ancillary:
                descriptors.frombytes(raw)
            fields = dict(line.partition("=")[::2] for line in message.splitlines())
            name = fields.get("FDNAME", "")
            if "FDSTORE" in fields:
                self.held.setdefault(name, []).extend(descriptors)
            if "FDSTOREREMOVE" in fields:
                for descriptor in self.held.pop(name, []):
                    os.close(descriptor)
            messages.append(message)


@contextmanager
def service_manager(address: str | Path) -> Iterator[Manager]:
    """Listens at a path, or at `@` and an abstract name."""
    text = str(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as wire:
        wire.bind("\0" + text[1:] if text.startswith("@") else text)
        manager = Manager(text, wire)
        yield manager
        manager.heard()
        for descriptors in manager.held.values():
            for descriptor in descriptors:
                os.close(descriptor)
