"""The real service as the cache sees it, with a clock that a test turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from imds_proxy.config import Cache, Config
from imds_proxy.errors import UNREACHABLE, Refused
from imds_proxy.policy.rules import Rate
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA, ItemClass
from imds_proxy.protocol.responses import Answer, plain
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.server.build import cache_rules
from imds_proxy.upstream.cache import AnswerCache, CacheRules
from imds_proxy.upstream.flight import follow
from imds_proxy.upstream.gate import UpstreamGate
from imds_proxy.upstream.reader import ServiceReader
from told import told

ROLE = "meta-data/ram/security-credentials/demo-role"
LISTING = "meta-data/ram/security-credentials/"


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class ClockedService:
    """Counts what it is asked; `cache` is the cache before it. `dates`: it sends Date."""

    classes = ItemClassifier(ALIBABA)
    way = "read"  # by which it is read: with "ask" by a callback where that may be
    ready = True

    def __init__(self, cache: Cache, dates: bool = True) -> None:
        self.now, self.dates = 1000.0, dates
        self.ahead = 1_700_000_000.0  # its clock is Unix time, ours counts from the boot
        self.asked: list[str] = []
        self.values: dict[str, Answer | Exception] = {}
        self.delay = 0.0
        self.gate = UpstreamGate(Rate(1e6, 1e6), 0.5, time.monotonic)
        self.cache = AnswerCache(cast(ServiceReader, self), self.gate, rules(cache), self.clock, lambda: 0.0)

    def clock(self) -> float:
        return self.now

    async def read(self, target: Target, item: object, allow: object) -> Answer:
        name = target.path.removeprefix("/latest/")
        self.asked.append(name)
        if self.delay:
            await asyncio.sleep(self.delay)
        value = self.values.get(name, plain(200, b"value of " + name.encode()))
        if isinstance(value, Exception):
            raise value
        if not self.dates:
            return value
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now + self.ahead)).encode()
        return replace(value, headers=(*value.headers, (b"Date", date)))

    def ask(self, target: Target, item: object, allow: object, told: Callable[[Any], None]) -> None:
        follow(self.read(target, item, allow), told)

    def offer(self, left: float, name: str = ROLE, life: float = 21600.0, extra: str = '"x":0') -> None:
        """From now on a set of credentials with so many seconds left, and further members."""
        end = self.now + self.ahead + left
        times = f'"Expiration":"{stamp(end)}","LastUpdated":"{stamp(end - life)}"'
        body = f'{{"Code":"Success",{times},{extra}}}'
        self.values[name] = plain(200, body.encode())

    async def get(self, name: str, caller: str = "a", *, cached: bool = True) -> Answer:
        target = canonical_target(f"/latest/{name}".encode())
        item = self.classes.classify(target)
        if self.way == "ask":
            fresh = self.cache.fresh(target, self.now) if cached else None
            if fresh is not None:
                return fresh
            if item is not ItemClass.NEVER and self.cache.may_ask(target, cached=cached):
                answer: Answer = await told(partial(self.cache.ask, target, item, caller, lambda _: True))
                return answer
        until = time.monotonic() + 0.9
        served = await self.cache.read(target, item, caller, until, lambda _: True, cached=cached)
        assert served.stale == (dict(served.answer.headers).get(b"X-Imds-Proxy") == b"stale")
        return served.answer

    def down(self, name: str) -> None:
        self.values[name] = Refused(UNREACHABLE)


def rules(cache: Cache) -> CacheRules:
    return cache_rules(Config(cache=cache))
