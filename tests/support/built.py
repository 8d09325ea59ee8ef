"""Packages built from this source tree, by name of architecture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Packages:
    """A directory of built packages."""

    path: Path

    def deb(self, architecture: str = os.uname().machine) -> Path:
        (found,) = self.path.glob(f"*_{ARCHITECTURES[architecture]}.deb")
        return found

    def rpm(self, architecture: str = os.uname().machine) -> Path:
        (found,) = self.path.glob(f"*.{architecture}.rpm")
        return found
