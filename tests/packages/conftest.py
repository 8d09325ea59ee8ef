"""The packages, built once from this source tree, and root file systems to install them in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from built import Packages
from rootfs import Root, debian, throwaway

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """For both formats and architectures, by the one command."""
    dist = tmp_path_factory.mktemp("dist")
    environment = os.environ | {"DIST": str(dist), "BIN": str(Path(sys.executable).parent)}
    words = [str(CHECKOUT / "packaging/packages/build.sh")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    return Packages(dist)


@pytest.fixture
def root() -> Iterator[Root]:
    """A clean Debian that may be changed."""
    with throwaway(debian()) as made:
        yield made
