"""A thread that looks at callers' processes, one after the other, and can be left behind when it hangs.

A process may have put a file system under its files that never answers: such a look is given up, and after
some of them there are no more. Knows nothing of what a look is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_WAITING = 64
_PATIENCE = 10.0  # seconds; a look bounds itself to far less, unless the kernel does not return
_MAX_HUNG = 3

Job = Callable[[], None]


class LookingThread:
    """Runs jobs in their order. `give_up` is told, once for each, of looks that hang. Of one thread."""

    def __init__(self, give_up: Callable[[int], None], patience: float = _PATIENCE) -> None:
        self._give_up, self._patience = give_up, patience
        self._jobs: queue.Queue[Job | None] = queue.Queue(_WAITING)
        self._hung = 0
        self._worker: _Worker | None = None

    def put(self, job: Job) -> bool:
        """Whether the job was taken: not where too many wait, or too many hang."""
        worker = self._worker
        if worker is not None and worker.hangs(self._patience):
            self._hung += 1
            worker.left = True
            self._worker = worker = None
            self._give_up(self._hung)
        if self._hung >= _MAX_HUNG:
            return False
        if worker is None:
            self._worker = _Worker(self._jobs)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def close(self, timeout: float = 0.5) -> None:
        """Ends the thread, or leaves it: it is a daemon, and keeps no process from its end."""
        if self._worker is not None:
            with suppress(queue.Full):
                self._jobs.put_nowait(None)
            self._worker.thread.join(timeout)


class _Worker:
    """One thread and since when it is busy."""

    def __init__(self, jobs: queue.Queue[Job | None]) -> None:
        self._jobs = jobs
        self._since: float | None = None
        self.left = False
        self.thread = threading.Thread(target=self._run, name="clients", daemon=True)
        self.thread.start()

    def hangs(self, patience: float) -> bool:
        """Whether its job takes longer than that."""
        since = self._since
        return since is not None and time.monotonic() - since > patience

    def _run(self) -> None:
        while not self.left:
            job = self._jobs.get()
            if job is None:
                return
            self._since = time.monotonic()
            job()
            self._since = None
