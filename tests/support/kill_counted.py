"""Kills a process with SIGKILL, and says which connections it had accepted by then.

A program: `kill_counted.py PID`. Prints the callers' ports, one a line. The process is stopped first, so that
it accepts nothing between the count and its death.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    pid = int(sys.argv[1])
    os.kill(pid, signal.SIGSTOP)
    while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
        pass
    held = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held.add(str(path.readlink()))
    listed = subprocess.run(["ss", "-tneH", "state", "connected"], capture_output=True, text=True, check=True)
    accepted = []
    for line in listed.stdout.splitlines():
        inode = re.search(r"\bino:(\d+)", line)
        if inode is not None and f"socket:[{inode[1]}]" in held:
            accepted.append(line.split()[4].rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    print(*accepted, sep="\n")


main()
