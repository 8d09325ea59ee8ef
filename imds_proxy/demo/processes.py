"""Child processes of the demo: started, waited for until they listen, ended by pid whatever happens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LISTENING = re.compile(r"listening on http://(\S+)\n")


@contextmanager
def serving(words: tuple[str, ...], log: Path) -> Iterator[str]:
    """Runs `imds-proxy WORDS` and yields the H:P on which it listens; SIGTERM at the end.

    Raises RuntimeError, with what it said, when it does not come to listen.
    """
    with log.open("a", encoding="utf-8") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "imds_proxy", *words], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        line = child.stdout.readline() if child.stdout else ""
        match = _LISTENING.fullmatch(line)
        if match is None:
            child.wait(5)
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(f"imds-proxy {words[0]} did not start: {said or line}")
        yield match[1]
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()
