"""Kills a process with SIGKILL, and says which connections it had accepted by then.

A program: `kill_counted.py PID`. Prints the callers' ports, one a line. Stopped first, it accepts nothing between the count
and its death.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_ESTABLISHED, _CLOSE_WAIT = "01", "08"


def main() -> None:
    pid = int(sys.argv[1])
    os.kill(pid, signal.SIGSTOP)
    while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
        pass
    held = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held.add(str(path.readlink()))
    accepted = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in (_ESTABLISHED, _CLOSE_WAIT) and f"socket:[{fields[9]}]" in held:
                accepted.append(int(fields[2].rpartition(":")[2], 16))
    os.kill(pid, signal.SIGKILL)
    print(*accepted, sep="\n")


main()
