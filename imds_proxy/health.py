"""Is the daemon alive? For probes of containers: `python -m imds_proxy.health [SOCKET]`, exit code 0 or 1.

Asks the admin socket, so that an event loop that no longer turns is not alive. Imports next to nothing, since
it runs every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

DEFAULT_SOCKET = "/run/imds-proxy/admin.sock"
PATIENCE = 2.0
"""Seconds that the daemon has for its answer: twice the longest wait of its callers."""


def alive(path: str) -> str | None:
    """None where the daemon at the admin socket `path` answers, else why it is not alive, as a sentence."""
    try:
        _become_owner(path)
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(PATIENCE)
            wire.connect(path)
            wire.sendall(b'{"command": "ping"}\n')
            answer = wire.recv(1)
    except OSError as error:
        return f"{path}: no answer: {error.strerror or error}"
    return None if answer else f"{path}: no answer: it was closed"


def main() -> int:
    """For people: silence, or the sentence on stderr."""
    failed = alive(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_SOCKET)
    if failed is not None:
        sys.stderr.write(failed + "\n")
    return 1 if failed else 0


def _become_owner(path: str) -> None:
    """Root without CAP_DAC_OVERRIDE, as in a container, may not write to another user's socket."""
    owner = Path(path).stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


if __name__ == "__main__":
    sys.exit(main())
