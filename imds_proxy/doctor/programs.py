"""Asks an installed program one short question. Knows no check."""

from __future__ import annotations

import os
import shutil
import subprocess

_SECONDS = 5.0
# Administrators' programs are often outside an ordinary user's PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def find_program(name: str) -> str | None:
    """The absolute path of a program, or None."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATH)))


def ask_program(path: str, *arguments: str, longest: int = 4000) -> tuple[int, str]:
    """Exit code and what it wrote (both streams, at most `longest` characters). Raises OSError.

    A program that takes more than 5 s is killed; its exit code is then -9.
    """
    command = [path, *arguments]
    try:
        done = subprocess.run(  # noqa: S603  (no shell; only fixed arguments and paths that we found)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -9, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")[:longest].strip()
