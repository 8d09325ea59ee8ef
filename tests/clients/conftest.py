"""Real programs, unchanged, in a namespace where 100.100.100.200 is the proxy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.demo.clients import python_environment
from lab import Lab, metadata_lab

TTL = "X-aliyun-ecs-metadata-token-ttl-seconds: 600"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The service accepts hardened mode only."""
    with metadata_lab("--http-tokens", "required", "--role", "demo-role") as running:
        yield running


@pytest.fixture(scope="session")
def access_key(lab: Lab) -> str:
    """The AccessKeyId that the service gives now, asked directly."""
    base = f"http://{lab.service}/latest"
    token = lab.run("curl", "-sf", "-X", "PUT", "-H", TTL, f"{base}/api/token").stdout
    header = f"X-aliyun-ecs-metadata-token: {token}"
    role = lab.run("curl", "-sf", "-H", header, f"{base}/meta-data/ram/security-credentials/demo-role")
    return str(json.loads(role.stdout)["AccessKeyId"])


@pytest.fixture(scope="session")
def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imds-proxy" / "tests"


class Sdks:
    """Official SDKs in one release each, installed once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def python(self, release: str) -> str:
        """A Python that has alibabacloud-credentials in this release."""
        packages = (f"alibabacloud-credentials=={release}", "setuptools<81")
        return str(python_environment(self._cache / f"sdk-{release}", packages) / "bin/python")

    def node(self, release: str) -> str:
        """The `node_modules` that holds @alicloud/credentials in this release."""
        place = self._cache / f"node-sdk-{release}"
        modules = place / "node_modules"
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            words = [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--no-save",
                f"@alicloud/credentials@{release}",
            ]
            subprocess.run(words, cwd=place, check=True, capture_output=True, timeout=300)
            (place / "complete").touch()
        return str(modules)


@pytest.fixture(scope="session")
def sdks(cache: Path) -> Sdks:
    return Sdks(cache)
