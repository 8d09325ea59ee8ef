"""What connections share is one value that a reload swaps whole."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from imds_proxy.config import Config
from imds_proxy.server.build import Daemon, apply
from served import conversation


def test_a_reload_makes_another_and_leaves_the_old_one_as_it_was() -> None:
    async def talk(
        _: asyncio.StreamReader, __: asyncio.StreamWriter, daemon: Daemon
    ) -> tuple[int, int, bool]:
        old = daemon.shared
        limits = dataclasses.replace(Config().limits, head=4096)
        new = apply(daemon, dataclasses.replace(Config(), limits=limits), daemon.shared.service.policy).shared
        with pytest.raises(dataclasses.FrozenInstanceError):
            old.rules = new.rules  # type: ignore[misc]
        return old.rules.max_head, new.rules.max_head, new.memory is old.memory

    before, after, same_memory = conversation(talk)
    assert (before != after, after, same_memory) == (True, 4096, False)
