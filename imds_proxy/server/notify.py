"""What a service tells systemd: sd_notify(3), one datagram a message, with descriptors where it stores some.

Knows the words only, not when they are said.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import MutableMapping, Sequence

_PATIENCE = 1.0  # seconds: systemd reads at once, or is in trouble itself
_LONGEST_NAME = 255  # of a stored descriptor, sd_pid_notify_with_fds(3)


class Notifier:
    """Where a service says how it is. Without systemd every word goes nowhere."""

    def __init__(self, address: str | None) -> None:
        """`address` is that of a Unix datagram socket: a path, or `@` and an abstract name."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._wire: socket.socket | None = None
        if self._address:
            self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._wire.settimeout(_PATIENCE)

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """The one that systemd named; taken out of the environment, so that no child speaks for us."""
        return cls(environment.pop("NOTIFY_SOCKET", None))

    @property
    def listening(self) -> bool:
        """Whether there is anybody to tell."""
        return self._wire is not None

    def ready(self, status: str) -> None:
        """The service serves; `status` is one line for people."""
        self._say("READY=1", _status(status))

    def status(self, status: str) -> None:
        """How it is now, one line for people."""
        self._say(_status(status))

    def alive(self) -> None:
        """Feeds the watchdog."""
        self._say("WATCHDOG=1")

    def reloading(self) -> None:
        """It reads its configuration; `ready` follows."""
        self._say("RELOADING=1")

    def stopping(self, status: str) -> None:
        """It drains."""
        self._say("STOPPING=1", _status(status))

    def store(self, name: str, descriptors: Sequence[int], polled: bool = True) -> bool:
        """Gives systemd copies of descriptors, for our next start; whether they were sent.

        A copy whose other side hangs up or fails is let go of, unless not `polled` (systemd 246 and later;
        an older one always polls).
        """
        if not 0 < len(name) <= _LONGEST_NAME or ":" in name or not (name.isascii() and name.isprintable()):
            raise ValueError(f"{name!r} is no name of a stored descriptor")
        return self._say("FDSTORE=1", f"FDNAME={name}", *(() if polled else ("FDPOLL=0",)), send=descriptors)

    def unstore(self, name: str) -> None:
        """Lets systemd close what it holds by that name."""
        self._say("FDSTOREREMOVE=1", f"FDNAME={name}")

    def close(self) -> None:
        """Says nothing any more."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _say(self, *lines: str, send: Sequence[int] = ()) -> bool:
        if self._wire is None or self._address is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", send))] if send else []
        try:
            self._wire.sendmsg(["\n".join(lines).encode()], rights, 0, self._address)
        except OSError:
            return False  # whoever does not listen to us cannot be told so either
        return True


def watchdog_interval(environment: MutableMapping[str, str], pid: int) -> float | None:
    """Seconds after which systemd takes the process `pid` for hung; None where it does not watch. Taken out
    of the environment."""
    microseconds = environment.pop("WATCHDOG_USEC", "")
    watched = environment.pop("WATCHDOG_PID", "") or str(pid)
    if watched != str(pid) or not microseconds.isdigit() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6


def inherited(environment: MutableMapping[str, str], pid: int) -> list[tuple[str, int]]:
    """The descriptors that systemd passed to the process `pid`, each with its name: those of socket units
    and those that an earlier run stored. Taken out of the environment; no child inherits them."""
    for_pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    environment.pop("LISTEN_PIDFDID", None)
    if for_pid != str(pid) or not count.isdigit():
        return []
    passed = []
    for index in range(int(count)):
        descriptor = 3 + index  # SD_LISTEN_FDS_START
        os.set_inheritable(descriptor, False)
        passed.append((names[index] if index < len(names) else "", descriptor))
    return passed


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
