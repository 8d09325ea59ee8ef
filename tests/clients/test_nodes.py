"""Packages are found where the process's own `require` would find them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imds_proxy.clients.nodes import node_packages
from imds_proxy.clients.rooted import Exhausted
from trees import package, rooted, write

NAME = "@alicloud/credentials"


def found(
    root: Path, *starts: str, node_path: tuple[str, ...] = (), **budget: float
) -> list[tuple[str | None, str | None]]:
    with rooted(root, **budget) as files:
        return [
            (one.version, one.where) for one in node_packages(files, starts, node_path, frozenset({NAME}))
        ]


@pytest.mark.parametrize("start", ["/srv/app", "/srv/app/src/lib", "/srv/app/node_modules/.bin"])
def test_a_package_is_found_upwards(tmp_path: Path, start: str) -> None:
    package(tmp_path, "/srv/app", NAME, "2.2.6")
    assert found(tmp_path, start) == [("2.2.6", "/srv/app")]


def test_one_that_is_not_on_the_way_up_is_not(tmp_path: Path) -> None:
    package(tmp_path, "/srv/other", NAME, "2.2.6")
    assert found(tmp_path, "/srv/app") == []


def test_the_nearest_comes_first(tmp_path: Path) -> None:
    package(tmp_path, "/srv", NAME, "2.2.6")
    package(tmp_path, "/srv/app", NAME, "2.4.7")
    assert found(tmp_path, "/srv/app")[0] == ("2.4.7", "/srv/app")


@pytest.mark.parametrize(
    "holder", ["openapi", "@alicloud/openapi-client", ".pnpm/@alicloud+credentials@2.3.0"]
)
def test_a_copy_inside_another_package_is_found(tmp_path: Path, holder: str) -> None:
    package(tmp_path, f"/srv/app/node_modules/{holder}", NAME, "2.3.0")
    assert found(tmp_path, "/srv/app") == [("2.3.0", f"/srv/app/node_modules/{holder}")]


def test_node_path_counts(tmp_path: Path) -> None:
    package(tmp_path, "/opt/shared", NAME, "2.4.0")
    assert found(tmp_path, "/srv", node_path=("/opt/shared/node_modules", "relative")) == [
        ("2.4.0", "/opt/shared")
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "other", "version": "1.0"}', "[" * 100_000, '{"version": "2.2.6"}']
)
def test_what_is_no_package_of_that_name_is_passed_over(tmp_path: Path, text: str) -> None:
    write(tmp_path, f"/srv/node_modules/{NAME}/package.json", text)
    assert found(tmp_path, "/srv") == []


@pytest.mark.parametrize("version", ["null", "7", '"latest"', '"1.0\\u001b"'])
def test_a_version_that_is_none_is_not_told(tmp_path: Path, version: str) -> None:
    write(tmp_path, f"/srv/node_modules/{NAME}/package.json", f'{{"name": "{NAME}", "version": {version}}}')
    assert found(tmp_path, "/srv") == [(None, "/srv")]


def test_a_fifo_and_a_link_out_are_passed_over(tmp_path: Path) -> None:
    directory = tmp_path / f"srv/node_modules/{NAME}"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "package.json")
    (tmp_path / "srv/app").mkdir()
    (tmp_path / "srv/app/node_modules").symlink_to("/../../../usr/share/nodejs")
    assert found(tmp_path, "/srv/app") == []


def test_ten_thousand_packages_end_the_budget_not_the_machine(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"srv/node_modules/p{number}").mkdir(parents=True)
    with pytest.raises(Exhausted):
        found(tmp_path, "/srv", files=500)
    assert found(tmp_path, "/srv") == []
