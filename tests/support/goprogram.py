"""Small Go programs of modules that stand beside them: their build info is the real linker's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GoModule:
    """A module's path and version, and its files (a path below the module to its text)."""

    path: str
    version: str
    files: Mapping[str, str]

    @property
    def packages(self) -> list[str]:
        directories = {str(Path(self.path, name).parent) for name in self.files}
        return sorted(directories)


def build_program(place: Path, name: str, source: str, modules: Iterable[GoModule] = ()) -> Path:
    """The executable of a main package with this source; needs no network."""
    go = shutil.which("go")
    assert go, "go is missing: see packaging/system-packages.sh"
    used = list(modules)
    requires = "".join(f"require {one.path} {one.version}\n" for one in used)
    _write(place / "go.mod", f"module {name}\n\ngo 1.19\n\n{requires}")
    _write(place / "main.go", source)
    listed = ""
    for one in used:
        listed += f"# {one.path} {one.version}\n## explicit\n" + "".join(
            f"{package}\n" for package in one.packages
        )
        for file, text in one.files.items():
            _write(place / "vendor" / one.path / file, text)
    if used:
        _write(place / "vendor/modules.txt", listed)
    environment = {
        **os.environ,
        "GOFLAGS": "-mod=vendor" if used else "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
    }
    words = [go, "build", "-trimpath", "-o", "program", "."]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return place / "program"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
