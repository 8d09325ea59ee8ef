"""Each package has the compiled parts of its own architecture, for every Python that it supports."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from built import Packages

MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of the ELF header
MINORS = range(10, 16)


def unpacked(packages: Packages, kind: str, architecture: str, into: Path) -> Path:
    if kind == "deb":
        subprocess.run(["dpkg-deb", "--extract", str(packages.deb(architecture)), str(into)], check=True)
    else:
        words = ["rpm2archive", "-n", "-"]
        archive = subprocess.run(
            words, input=packages.rpm(architecture).read_bytes(), capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into / "usr/lib/imds-proxy"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MACHINES)
@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_compiled_parts_are_of_the_packages_architecture(
    packages: Packages, tmp_path: Path, kind: str, architecture: str
) -> None:
    home = unpacked(packages, kind, architecture, tmp_path)
    for minor in MINORS:
        site = home / f"lib/python3.{minor}/site-packages"
        names = {path.name.split(".")[0] for path in site.rglob("*.so")}
        assert names == {"loop", "_yaml"}
        for path in site.rglob("*.so"):
            assert f"cpython-3{minor}-{architecture}" in path.name
            assert struct.unpack_from("<H", path.read_bytes(), 18) == (MACHINES[architecture],)
        assert (home / f"bin/python3.{minor}").readlink().name == f"python3.{minor}"
    assert not list((home / "site-packages").rglob("*.so"))
