"""The RPM package on a clean root file system, by rpm itself: dependencies, install, upgrade, erase."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import imds_proxy
from built import Packages
from rootfs import Root

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONFIG = "etc/imds-proxy/config.yaml"
MINE = "mode: enforce\n"
CHECKOUT = Path(__file__).parents[2]
# What an RPM distribution's own packages provide; the root file system is a Debian.
DISTRIBUTION = """
name: distribution
arch: all
version: "1"
description: what the proxy's package needs
provides: [{provides}]
"""


def rpm(root: Root, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["rpm", "--root", str(root.path), "--force-debian", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def install(root: Root, package: Path, *options: str) -> None:
    done = rpm(root, *(options or ["--install"]), str(package))
    assert done.returncode == 0, done.stderr


def made(directory: Path, name: str, description: str, **environment: str) -> Path:
    directory.mkdir()
    config = directory / "nfpm.yaml"
    config.write_text(description)
    words = [
        str(Path(sys.executable).parent / "nfpm"),
        "package",
        "--config",
        str(config),
        "--packager",
        "rpm",
    ]
    target = directory / f"{name}.rpm"
    subprocess.run(
        [*words, "--target", str(target)],
        check=True,
        cwd=CHECKOUT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
    )
    return target


@pytest.fixture
def distribution(root: Root, tmp_path: Path) -> Root:
    """A root whose rpm knows a Python 3.11 beside the system's 3.6, as in the RHEL 8 family."""
    provides = "'python(abi) = 3.6', 'python(abi) = 3.11', nftables, shadow-utils, /bin/sh"
    install(root, made(tmp_path / "os", "distribution", DISTRIBUTION.format(provides=provides)))
    return root


def of_rpm(path: str) -> bool:
    own = ("/root/.rpmdb/", "/var/lib/rpm", "/var/log/", "/var/cache/", "/tmp/", "/proc/", "/run/")
    records = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"}
    return path.startswith(own) or path in records


def test_it_wants_a_python_that_it_supports(packages: Packages, root: Root, tmp_path: Path) -> None:
    old = "'python(abi) = 3.6', nftables, shadow-utils, /bin/sh"
    install(root, made(tmp_path / "os", "distribution", DISTRIBUTION.format(provides=old)))
    done = rpm(root, "--install", str(packages.rpm()))
    assert done.returncode != 0
    assert "python(abi) = 3.11" in done.stderr


def test_installed_it_runs_and_erased_nothing_is_left(packages: Packages, distribution: Root) -> None:
    before = distribution.snapshot(of_rpm)
    install(distribution, packages.rpm())
    assert distribution.run("imds-proxy", "--version").startswith("imds-proxy ")
    assert "configuration ok" in distribution.run("imds-proxy", "check")
    assert "imds-proxy" in distribution.run("getent", "passwd", "imds-proxy")
    assert (distribution.path / "usr/share/zsh/site-functions/_imds-proxy").exists()
    distribution.run("systemctl", "enable", "imds-proxy.service")
    distribution.run("sh", "-c", "mkdir -p /var/lib/imds-proxy && echo x > /var/lib/imds-proxy/file")
    assert rpm(distribution, "--erase", "imds-proxy").returncode == 0
    assert distribution.snapshot(of_rpm) == before


def test_an_upgrade_keeps_a_changed_configuration(
    packages: Packages, distribution: Root, tmp_path: Path
) -> None:
    install(distribution, packages.rpm())
    (distribution.path / CONFIG).write_text(MINE)
    tree = tmp_path / "tree"
    archive = subprocess.run(
        ["rpm2archive", "-n", "-"], input=packages.rpm().read_bytes(), capture_output=True, check=True
    )
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    (tree / CONFIG).write_text("# the next release's example\n")
    shutil.copytree(tree / "usr/share/bash-completion/completions", tree / "completion")
    (tree / "completion/imds-proxy").rename(tree / "completion/imds-proxy.bash")
    shutil.copy(tree / "usr/share/fish/vendor_completions.d/imds-proxy.fish", tree / "completion")
    shutil.copy(tree / "usr/share/zsh/site-functions/_imds-proxy", tree / "completion/imds-proxy.zsh")
    description = (
        (CHECKOUT / "packaging/packages/nfpm.yaml").read_text().replace('release: "1"', 'release: "2"')
    )
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    following = made(
        tmp_path / "next", "next", description, ROOT=str(tree), VERSION=imds_proxy.__version__, GOARCH=machine
    )
    install(distribution, following, "--upgrade")
    assert (distribution.path / CONFIG).read_text() == MINE
    assert "next release" in (distribution.path / f"{CONFIG}.rpmnew").read_text()
    assert distribution.run("imds-proxy", "--version").startswith("imds-proxy ")
    assert rpm(distribution, "--erase", "imds-proxy").returncode == 0
    assert (distribution.path / f"{CONFIG}.rpmsave").read_text() == MINE
    assert not (distribution.path / "usr/lib/imds-proxy").exists()
