"""Descriptors that outlive the process: systemd holds them from one run to the next.

What they are is known to those who keep them. A crash lets none of them go; a unit that is stopped, or given
up, lets all of them go, and the kernel then undoes what hung on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from imds_proxy.server.notify import Notifier

_KEPT = "kept-"  # begins the names of what runs of ours stored; other names are those of socket units


class DescriptorStore:
    """What earlier runs left, what socket units gave, and what this run leaves to the next."""

    def __init__(self, notifier: Notifier, inherited: Iterable[tuple[str, int]]) -> None:
        """`inherited` are names and descriptors, as systemd passed them."""
        self._notifier = notifier
        self._left: dict[str, list[int]] = {}
        self._kept: dict[str, tuple[Sequence[int], bool]] = {}
        self.activated: list[int] = []
        """Descriptors of socket units: whoever takes one out of the list owns it."""
        for name, descriptor in inherited:
            if name.startswith(_KEPT):
                self._left.setdefault(name.removeprefix(_KEPT), []).append(descriptor)
            else:
                self.activated.append(descriptor)

    @property
    def usable(self) -> bool:
        """Whether there is anybody to hold something for us."""
        return self._notifier.listening

    def left(self, prefix: str) -> list[str]:
        """The names, beginning so, of what earlier runs left and nobody has taken or dropped yet."""
        return [name for name in self._left if name.startswith(prefix)]

    def take(self, name: str) -> list[int]:
        """What earlier runs left by that name: the caller's from now on, and still held by systemd."""
        return self._left.pop(name, [])

    def keep(self, name: str, descriptors: Sequence[int], polled: bool = True) -> None:
        """Lets systemd hold copies too, one of each; `polled` as `Notifier.store` has it."""
        self._kept[name] = (descriptors, polled)
        self._notifier.store(_KEPT + name, descriptors, polled)

    def close_first(self, prefix: str) -> None:
        """Lets systemd close what is kept by names that begin so before all else that is kept by now, should
        it close everything: it begins with what it was given last."""
        for name, (descriptors, polled) in list(self._kept.items()):
            if name.startswith(prefix):
                self._notifier.unstore(_KEPT + name)
                self._notifier.store(_KEPT + name, descriptors, polled)

    def drop(self, name: str) -> None:
        """Closes what is kept by that name: in systemd, and here what was not taken."""
        for descriptor in self.take(name):
            os.close(descriptor)
        self._kept.pop(name, None)
        self._notifier.unstore(_KEPT + name)
