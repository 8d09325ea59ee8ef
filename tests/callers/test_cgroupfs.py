from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import Cgroup, CgroupTree


@pytest.mark.root
def test_a_cgroup_is_found_by_its_id_and_has_its_processes(
    client: Any, new_cgroup: Callable[[str], Path]
) -> None:
    directory = new_cgroup(f"imds-test-{os.getpid()}.service")
    (directory / "cgroup.procs").write_text(str(client.pid))
    tree = CgroupTree.find()
    cgroup_id = tree.id_of("/" + directory.name)
    assert cgroup_id == directory.stat().st_ino
    assert tree.cgroup(cgroup_id) == Cgroup(cgroup_id, "/" + directory.name, is_root=False)
    assert tree.processes("/" + directory.name) == [client.pid]
    assert tree.root_id is not None
    assert tree.cgroup(tree.root_id) == Cgroup(tree.root_id, "/", is_root=True)
    tree.close()


@pytest.mark.root
def test_a_cgroup_that_was_removed_has_no_path(new_cgroup: Callable[[str], Path]) -> None:
    tree = CgroupTree.find()
    directory = new_cgroup(f"imds-test-gone-{os.getpid()}")
    cgroup_id = directory.stat().st_ino
    directory.rmdir()
    try:
        assert tree.cgroup(cgroup_id) == Cgroup(cgroup_id, None, is_root=False)
        assert tree.id_of("/" + directory.name) is None
        assert tree.processes("/" + directory.name) == []
    finally:
        directory.mkdir()  # the fixture removes it
        tree.close()


def test_a_path_above_our_cgroup_namespace_has_no_id() -> None:
    tree = CgroupTree.find()
    assert tree.id_of("/../system.slice") is None
    tree.close()


def test_without_a_v2_hierarchy_nothing_is_known(tmp_path: Path) -> None:
    tree = CgroupTree.find((str(tmp_path),))
    assert tree.root_id is None
    assert tree.id_of("/") is None
    assert tree.cgroup(1) == Cgroup(1, None, is_root=False)
    assert tree.processes("/") == []
    tree.close()
    tree.close()
