"""Whether other programs want the processors: what a test may ask of a time depends on it.

A test measures before and after what it times, and asks for less only where the machine was not its own.
"""

from __future__ import annotations

import time
from pathlib import Path

_QUIET = 0.85
_INTERVAL = 0.5  # seconds


def is_quiet() -> bool:
    """Whether nearly all of the processors' time is nobody's, over half a second."""
    before = _ticks()
    time.sleep(_INTERVAL)  # what is measured
    spent = [after - one for after, one in zip(_ticks(), before, strict=True)]
    # Idle and iowait, of all up to `steal`: guests are counted twice after that (proc_stat(5)).
    return (spent[3] + spent[4]) / max(1, sum(spent[:8])) >= _QUIET


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
