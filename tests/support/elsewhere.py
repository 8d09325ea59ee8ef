"""A network namespace of its own for some calls of a test: a thread that stays in it. Needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from netns import own_network

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Elsewhere:
    """Runs calls in the thread; what they open stays in its namespace, and so do programs they start."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread

    def call(self, function: Callable[_P, _T], *words: _P.args, **named: _P.kwargs) -> _T:
        return self._thread.submit(function, *words, **named).result(30)

    def sh(self, line: str) -> str:
        done = self.call(subprocess.run, line.split(), capture_output=True, text=True, check=True)
        return str(done.stdout)


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """With loopback up and no route to anywhere."""
    with ThreadPoolExecutor(1) as thread:
        network = own_network()
        place = Elsewhere(thread)
        place.call(network.__enter__)
        try:
            yield place
        finally:
            place.call(network.__exit__, None, None, None)
