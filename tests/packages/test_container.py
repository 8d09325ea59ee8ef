"""The image: as small as it can be, no shell, not root, and it works with a read-only file system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from containers import Store

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1024 * 1024


def run(store: Store, image: str, *words: str) -> str:
    return store.podman("run", "--rm", "--network", "none", "--read-only", image, *words)


def inspected(store: Store, image: str) -> dict[str, Any]:
    (found,) = json.loads(store.podman("image", "inspect", image))
    return dict(found)


def test_it_runs_read_only_as_the_reserved_user_with_all_that_it_imports(store: Store, image: str) -> None:
    assert run(store, image, "--version").startswith("imds-proxy ")
    findings = json.loads(run(store, image, "doctor", "--json"))["findings"]
    states = {one["slug"]: (one["state"], one["sentence"]) for one in findings}
    assert states["user"] == ("ok", "runs as uid 64200")
    for slug in ("uvloop", "libnftables", "state", "sock-diag"):
        assert states[slug][0] == "ok", states[slug]


def test_it_is_small_and_has_a_health_check(store: Store, image: str) -> None:
    facts = inspected(store, image)
    assert facts["Size"] < 64 * MIB
    assert facts["User"] == "64200:64200"
    assert facts["Healthcheck"]["Test"][-1] == "imds_proxy.health"


def test_it_has_no_shell_and_nothing_else_to_run(store: Store, image: str) -> None:
    container = store.buildah("from", image).strip()
    root = Path(store.buildah("mount", container).strip())
    programs = {
        path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (root / folder).glob("*")
    }
    assert {name for name in programs if not name.startswith("python3.")} == set()
    set_uid = [path for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o6000]
    assert set_uid == []
    store.buildah("rm", container)


def test_its_bytecode_is_taken_whatever_times_its_files_have(store: Store, image: str) -> None:
    container = store.buildah("from", image).strip()
    root = Path(store.buildah("mount", container).strip())
    sources = list(root.glob("usr/lib/imds-proxy/site-packages/imds_proxy/**/*.py"))
    compiled = list(root.glob("usr/lib/imds-proxy/site-packages/imds_proxy/**/*.pyc"))
    assert len(compiled) == len(sources) > 0
    # PEP 552: by the source's hash, which is not looked at.
    assert {int.from_bytes(one.read_bytes()[4:8], "little") for one in compiled} == {1}
    store.buildah("rm", container)


def test_the_health_check_tells_a_daemon_that_serves_from_none(store: Store, image: str) -> None:
    name = store.podman("run", "--detach", "--network", "none", "--read-only", image).strip()
    check = ["exec", name, *inspected(store, image)["Healthcheck"]["Test"][1:]]
    for _ in range(50):
        if store.attempt(*check).returncode == 0:
            break
    else:
        pytest.fail(store.podman("logs", name))
    assert store.attempt(*check, "/run/imds-proxy/other.sock").returncode == 1
    store.podman("rm", "--force", "--time", "0", name)
