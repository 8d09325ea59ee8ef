"""What the programs under test wrote, kept until the last test looks for secrets in it.

The emulator marks its secrets and tokens, so that parts of them, and other forms of them, can be found.
"""

from __future__ import annotations

import base64
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from imds_proxy.emulator.credentials import SECRET_MARK
from imds_proxy.emulator.tokens import TOKEN_MARK

PLACE = "IMDS_PROXY_TEST_EVIDENCE"  # an environment variable: the directory of this run of the tests
ENROLMENT = "emulated-enrolment-secret"
_numbers = itertools.count()
_LARGEST = 8 << 20  # bytes of one file
_MOST = 200  # files of one directory

given: set[str] = set()
"""Tokens that tests were given: sealed ones have no mark."""


def keep(name: str, data: bytes | str) -> None:
    """Keeps what a program wrote, where this run of the tests keeps any."""
    directory = os.environ.get(PLACE)
    if directory is None or not data:
        return
    number = next(_numbers)
    text = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    Path(directory, f"{number:06}-{os.getpid()}-{name}").write_bytes(text)


def keep_tree(directory: Path) -> None:
    """Keeps the files below a directory that is about to be removed; not what is mounted there."""
    device, left = directory.stat().st_dev, _MOST
    for place, below, names in os.walk(directory):
        below[:] = [name for name in below if Path(place, name).lstat().st_dev == device]
        for name in names:
            path = Path(place, name)
            try:
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
                    keep(f"{directory.name}-{name}"[:120], path.read_bytes())
                    left -= 1
            except OSError:
                continue  # a program is still at work there
            if not left:
                return


def needles() -> dict[bytes, str]:
    """What must not be found, and what it is part of."""
    found: dict[bytes, str] = {}
    marks = {SECRET_MARK: "a secret", TOKEN_MARK: "a token", ENROLMENT: "an enrolment secret"}
    for mark, what in marks.items():
        raw = mark.encode()
        found[raw] = what
        found[raw.hex().encode()] = f"{what}, in hexadecimal"
        for shift in range(3):  # wherever it stands in what was encoded
            whole = base64.b64encode(b"\0" * shift + raw + b"\0\0\0")
            found[whole[(8 * shift + 5) // 6 : 8 * (shift + len(raw)) // 6]] = f"{what}, in base64"
    found.update((token.encode(), "a token that was given to a test") for token in given)
    return found


def leaks(name: str, data: bytes) -> Iterator[str]:
    """A sentence for each needle in what a file holds. The secret itself is not said."""
    for needle, what in needles().items():
        at = data.find(needle)
        if at >= 0:
            line = data.count(b"\n", 0, at) + 1
            before = data[max(0, at - 60) : at]
            yield f"{name}, line {line}: {what}, after {before!r}"
