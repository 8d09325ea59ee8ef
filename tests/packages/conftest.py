"""The packages, built once from this source tree, and root file systems to install them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from built import Packages
from containers import Store, image_store
from rootfs import Root, debian, throwaway

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """For both formats and architectures, by the one command."""
    built = os.environ.get("IMDS_PROXY_TEST_PACKAGES")  # by hand: a directory of packages
    if built:
        return Packages(Path(built))
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


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of images with the small Debian as localhost/debian."""
    with image_store(tmp_path_factory.mktemp("store")) as made:
        made.image_of(debian(), "localhost/debian")
        yield made


@pytest.fixture(scope="session")
def image(packages: Packages, store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The proxy's image, built as shipped, over a base that was not pulled."""
    context = tmp_path_factory.mktemp("context")
    shutil.copytree(packages.path, context / "dist")
    shutil.copytree(CHECKOUT / "packaging/container", context / "packaging/container")
    recipe = str(context / "packaging/container/Containerfile")
    base = ["--build-arg", "BASE=localhost/debian", "--format", "docker"]
    store.buildah("bud", *base, "--file", recipe, "--tag", "localhost/imds-proxy", str(context))
    return "localhost/imds-proxy"


@pytest.fixture(scope="session")
def next_deb(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version: another comment in its configuration, one module less."""
    tree = tmp_path_factory.mktemp("next") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", str(packages.deb()), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("-1\n", "-2\n", 1))
    config = tree / "etc/imds-proxy/config.yaml"
    config.write_text("# the next release's example\n" + config.read_text())
    (tree / "usr/lib/imds-proxy/site-packages/imds_proxy/control.py").unlink()
    deb = tree.with_suffix(".deb")
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return deb
