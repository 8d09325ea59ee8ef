"""Names of hot items over a restart: names only, and nothing that is not ours is believed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imds_proxy.emulator.service import Emulator
from imds_proxy.server.hotitems import HotItems
from proxy import ask, running_proxy

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"


def test_names_come_back_and_are_the_owners_alone(tmp_path: Path) -> None:
    HotItems(tmp_path).save(["/b", "/a"])
    assert HotItems(tmp_path).load() == ["/a", "/b"]
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    hot = HotItems(tmp_path)
    hot.save(["/a"])
    (tmp_path / "hot-items.json").unlink()
    hot.save(["/a"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema": 2, "paths": ["/a"]}', '{"schema": 1, "paths": "/a"}', "[" * 9999],
)
def test_a_file_that_is_not_one_of_ours_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "hot-items.json").write_text(text)
    assert HotItems(tmp_path).load() == []


def test_there_is_a_most(tmp_path: Path) -> None:
    text = json.dumps({"schema": 1, "paths": [f"/{number}" for number in range(1000)] + [7]})
    (tmp_path / "hot-items.json").write_text(text)
    assert len(HotItems(tmp_path).load()) == 64


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_neither_hangs_nor_counts(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "hot-items.json")
    assert HotItems(tmp_path).load() == []


def test_after_a_restart_hot_items_are_there_before_the_first_caller(tmp_path: Path) -> None:
    with Emulator() as service:
        with running_proxy(service.address, state=tmp_path) as proxy:
            for _ in range(3):
                for path in (
                    ROLE,
                    "/latest/meta-data/mac",
                    "/latest/dynamic/instance-identity/pkcs7?audience=n",
                ):
                    assert ask("127.0.0.1", proxy.port, "GET", path).status == 200
            assert proxy.stop() == 0
        assert json.loads((tmp_path / "hot-items.json").read_text())["paths"] == [
            "/latest/meta-data/mac",
            ROLE,
        ]
        before = service.counters().by_path
        with running_proxy(service.address, state=tmp_path) as proxy:
            end = time.monotonic() + 5
            while service.counters().by_path.get(ROLE, 0) == before[ROLE]:
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.1)
            warm = service.counters().by_path
            assert ask("127.0.0.1", proxy.port, "GET", ROLE).status == 200
            assert ask("127.0.0.1", proxy.port, "GET", "/latest/meta-data/mac").status == 200
            assert service.counters().by_path == warm
