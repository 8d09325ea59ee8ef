"""Where a process runs: as which user, in which unit. Root only."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imds_proxy.callers.cgroupfs import MOUNTS

_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A cgroup of that name in the v2 hierarchy, as a unit would have; removed at the end."""
    mount = next((Path(one) for one in MOUNTS if Path(one, "cgroup.controllers").exists()), None)
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    path = mount / name
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        yield path
    finally:
        _remove(path)


def within(words: Sequence[str], uid: int, unit: Path | None = None) -> list[str]:
    """The words that run a program as that user, in that cgroup."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words]
    return ["sh", "-c", _ENTER, str(unit), *user] if unit else user


def curl(
    port: int,
    path: str,
    *options: str,
    uid: int = 0,
    unit: Path | None = None,
    program: str = "/usr/bin/curl",
    method: str = "GET",
) -> tuple[int, str]:
    """Status and body of one call by curl, as that user in that unit."""
    words = [
        program,
        "-s",
        "-X",
        method,
        "--max-time",
        "5",
        "-w",
        "\\n%{http_code}",
        "-H",
        "Host: 100.100.100.200",
    ]
    words += [*options, f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(within(words, uid, unit), capture_output=True, text=True, timeout=20, cwd="/")
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def _remove(path: Path) -> None:
    end = time.monotonic() + 5
    while True:
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (path.parent / "cgroup.procs").write_text(pid)
        try:
            path.rmdir()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)
