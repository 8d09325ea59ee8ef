"""The proxy's own two questions to the service take the proxy's turn, like any call."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import PROFILES
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.target import canonical_target
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.probe import ServiceProbe
from imds_proxy.upstream.reader import ServiceReader

PROFILE = PROFILES["alibaba"]
TARGET = canonical_target(PROFILE.instance_id_path.encode())


class Noting:
    """A gate and a reader in one: notes what is asked of each."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def turn(self, caller: object, until: float) -> None:
        self.asked.append((caller, until))

    async def read(self, target: object, item: object, allow: object) -> Any:
        self.asked.append("with a token")
        return plain(200, b"i-a")

    async def forward(self, method: str, target: object, item: object, headers: object) -> Any:
        self.asked.append((method, headers))
        return plain(403, b"")


def test_each_question_waits_for_the_proxys_turn_and_is_one_call() -> None:
    noting = Noting()
    probe = ServiceProbe(
        cast(ServiceReader, noting),
        cast(UpstreamGate, noting),
        (TARGET, ItemClassifier(PROFILE).classify(TARGET)),
        0.9,
        lambda: 5.0,
    )
    assert asyncio.run(probe.with_token()).status == 200
    assert asyncio.run(probe.plainly()).status == 403
    assert noting.asked == [(OURS, 5.9), "with a token", (OURS, 5.9), ("GET", ())]
