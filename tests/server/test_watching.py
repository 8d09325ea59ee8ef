"""The admin command `watch`: an answer when an item changes, and never a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clocked import ClockedService
from imds_proxy.config import Cache
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.server import watching
from imds_proxy.server.admin import ask as ask_admin
from imds_proxy.server.watching import Watching
from proxy import running_proxy

SPOT = "meta-data/instance/spot/termination-time"


def admin(config: Path) -> Path:
    return config.parent / "admin.sock"


def test_a_value_is_news_once_and_its_absence_is_one() -> None:
    with Emulator() as service, running_proxy(service.address, {"cache": {"volatile": "1s"}}) as proxy:
        first = ask_admin(admin(proxy.config), "watch", {"path": SPOT})
        assert (first["changed"], first["status"], first["value"]) == (True, 404, "")
        service.patch(spot_termination="2026-01-01T00:00:00Z")
        second = ask_admin(
            admin(proxy.config), "watch", {"path": f"/latest/{SPOT}", "known": first["digest"]}
        )
        assert (second["status"], second["value"]) == (200, "2026-01-01T00:00:00Z")


def test_a_hundred_looks_cost_the_service_one_call_in_a_cache_time() -> None:
    with (
        Emulator(settings=Settings(spot_termination="soon")) as service,
        running_proxy(service.address) as proxy,
    ):
        for _ in range(20):
            assert ask_admin(admin(proxy.config), "watch", {"path": SPOT})["changed"]
        assert service.counters().by_path[f"/latest/{SPOT}"] <= 2


@pytest.mark.parametrize(
    "path",
    [
        "meta-data/ram/security-credentials/demo-role",
        "meta-data/Ram/security-credentials/demo-role",
        "meta-data/all",
        "dynamic/instance-identity/pkcs7",
        "api/token",
        "global-config/x",
        "../meta-data/all",
        "a%2fb",
        "\u00e4",
        "",
        None,
        7,
    ],
)
def test_secrets_and_nonsense_cannot_be_watched(path: object) -> None:
    found = watched(lambda watching: watching.watch({"path": path}))
    assert (found["ok"], len(found["errors"])) == (False, 1)


def test_no_more_than_some_watch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LONGEST", 0.3)
    monkeypatch.setattr(watching, "_INTERVAL", 0.05)

    async def many(one: Watching) -> dict[str, Any]:
        first = await one.watch({"path": "meta-data/mac"})
        calls = (one.watch({"path": "meta-data/mac", "known": first["digest"]}) for _ in range(80))
        found = await asyncio.gather(*calls)
        return {
            "refused": sum(not answer["ok"] for answer in found),
            "changed": any(a.get("changed") for a in found),
        }

    assert watched(many) == {"refused": 16, "changed": False}


def watched(talk: Callable[[Watching], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        service = ClockedService(Cache())
        clock = asyncio.get_running_loop().time
        return await asyncio.wait_for(talk(Watching(service.cache, ItemClassifier(ALIBABA), clock)), 10)

    return asyncio.run(main())
