"""Images and containers without a registry: buildah and podman on a store of their own. Root only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIMITS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""


@dataclass(frozen=True)
class Store:
    """A store of images at `path`, gone with it."""

    path: Path

    def buildah(self, *words: str) -> str:
        """Its standard output; AssertionError, with what it said, where it fails."""
        return self._run("buildah", [], words)

    def podman(self, *words: str) -> str:
        return self._run("podman", ["--tmpdir", str(self.path / "tmp")], words)

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """podman, whatever its exit code."""
        return self._attempt("podman", ["--tmpdir", str(self.path / "tmp")], words)

    def image_of(self, root: Path, name: str) -> str:
        """An image of a whole root file system."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", container, str(root), "/")
        self.buildah("config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.buildah("commit", "--rm", container, name)
        return name

    def _run(self, program: str, options: list[str], words: tuple[str, ...]) -> str:
        done = self._attempt(program, options, words)
        assert done.returncode == 0, f"{program} {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _attempt(
        self, program: str, options: list[str], words: tuple[str, ...]
    ) -> subprocess.CompletedProcess[str]:
        where = [
            "--storage-driver",
            "vfs",
            "--root",
            str(self.path / "root"),
            "--runroot",
            str(self.path / "run"),
        ]
        environment = os.environ | {
            "CONTAINERS_CONF": str(self.path / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        return subprocess.run(
            [program, *where, *options, *words], env=environment, capture_output=True, text=True, timeout=300
        )


@contextmanager
def image_store(path: Path) -> Iterator[Store]:
    """An empty store; what runs from it is ended, and all of it removed."""
    (path / "containers.conf").write_text(_LIMITS)
    store = Store(path)
    try:
        yield store
    finally:
        store.attempt("pod", "rm", "--all", "--force", "--time", "0")
        store.attempt("rm", "--all", "--force", "--time", "0")
        store.attempt("rmi", "--all", "--force")
