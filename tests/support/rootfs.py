"""Root file systems: a small Debian, made once, and throw-away copies of it over an overlay. Root only."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(__file__).parents[2] / ".cache" / "roots"
_SUITE = "bookworm"
_PACKAGES = "python3,libnftables1,nftables,iproute2,systemd,curl,procps"


def debian() -> Path:
    """A minimal Debian with Python and systemd, made on first use by debootstrap; never to be changed."""
    name = hashlib.sha256(_PACKAGES.encode()).hexdigest()[:8]
    made = _CACHE / f"{_SUITE}-{name}"
    if not made.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=_CACHE))
        words = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(half)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=580)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        half.chmod(0o755)
        half.rename(made)
    return made


@dataclass(frozen=True)
class Root:
    """A root file system at `path` that may be changed."""

    path: Path

    def words(self, *command: str) -> list[str]:
        """The words that run a command in it, with its own processes and network."""
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        return ["unshare", "-mnpf", "--kill-child", "sh", "-c", script, str(self.path), *command]

    def run(self, *command: str, stdin: str = "") -> str:
        """Its standard output; AssertionError, with what it said, where it fails."""
        done = self.attempt(*command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        words = self.words(*command)
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=120, env=environment
        )

    def snapshot(self, leave_out: Callable[[str], bool]) -> dict[str, str]:
        """Each path with type, mode, owner and content; without those that `leave_out` says."""
        found = {}
        for directory, directories, files in os.walk(self.path):
            for name in [*directories, *files]:
                path = Path(directory, name)
                inside = "/" + str(path.relative_to(self.path))
                if not leave_out(inside):
                    found[inside] = _description(path)
        return found


@contextmanager
def throwaway(lower: Path) -> Iterator[Root]:
    """A copy of a root file system that lives in memory; `lower` stays as it is."""
    with tempfile.TemporaryDirectory(prefix="imds-root-") as directory:
        memory, merged = Path(directory) / "memory", Path(directory) / "root"
        memory.mkdir()
        merged.mkdir()
        _mount("-t", "tmpfs", "tmpfs", str(memory))
        try:
            (memory / "upper").mkdir(mode=0o755)
            (memory / "work").mkdir()
            layers = f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work"
            _mount("-t", "overlay", "overlay", "-o", layers, str(merged))
            try:
                yield Root(merged)
            finally:
                subprocess.run(["umount", str(merged)], check=True)
        finally:
            subprocess.run(["umount", str(memory)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _description(path: Path) -> str:
    status = path.lstat()
    facts = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if path.is_symlink():
        return f"{facts} -> {path.readlink()}"
    if path.is_file():
        return f"{facts} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return facts
