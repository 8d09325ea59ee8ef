"""Answers served again: fresh ones at once, stale ones while the service cannot be asked, others by asking.

Knows nothing of who may read what: whoever asks has decided that before.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from cachetools import LRUCache

from imds_proxy.errors import Refused
from imds_proxy.policy.freshness import Freshness, Lifetime, ServiceClock, of_credentials
from imds_proxy.protocol.credentials import CredentialTimes, credential_times, http_date, sets_within
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import REFUSAL_HEADER, Answer
from imds_proxy.protocol.target import Target
from imds_proxy.upstream.flight import FairFlight, look_at
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.reader import ServiceReader
from imds_proxy.upstream.roles import RoleWatch
from imds_proxy.upstream.store import AnswerStore, Stored

_STALE_AFTER = 0.25  # seconds that a caller waits for the service where an old answer would do
_MARGIN = 0.05  # seconds before a caller's deadline, for its answer
_RETRY = 0.3  # seconds in which a failed item is not asked for again where an old answer would do
_AHEAD = 60.0  # seconds that a call of our own may wait for its turn
# What is not left in memory when its time is over.
_SECRET = frozenset(
    {ItemClass.CREDENTIALS, ItemClass.AGGREGATE, ItemClass.USER_DATA, ItemClass.IDENTITY, ItemClass.UNKNOWN}
)
_MARK = (REFUSAL_HEADER, b"stale")


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What is kept, how long, and how much of it (`entries`, `size` in bytes)."""

    enabled: bool
    freshness: Freshness
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Served:
    """An answer, and whether it is one beyond its time."""

    answer: Answer
    stale: bool = False


class AnswerCache:
    """Reads through a store. `clock` gives seconds of CLOCK_BOOTTIME, `jitter` a number from 0 to 1."""

    def __init__(
        self,
        reader: ServiceReader,
        gate: UpstreamGate,
        rules: CacheRules,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._reader, self._gate, self._rules = reader, gate, rules
        self._clock, self._jitter = clock, jitter
        self._store = AnswerStore(rules.entries, rules.size)
        self._service_clock = ServiceClock()
        self._flights: FairFlight[Answer] = FairFlight(gate)
        self._failed: LRUCache[Hashable, float] = LRUCache(4096)
        self._roles = RoleWatch(self._store)
        self.misses = 0

    def __len__(self) -> int:
        return len(self._store)

    @property
    def hits(self) -> int:
        """How often an answer was served again, since the start; old ones too."""
        return self._store.hits

    @property
    def size(self) -> int:
        """Bytes kept, about."""
        return self._store.size

    def kept(self) -> list[Stored]:
        """What is kept now."""
        return [stored for _, stored in self._store.items()]

    def change(self, rules: CacheRules) -> None:
        """Other rules from now on, for what is kept too: no longer than if it had come just now."""
        self._rules = rules
        self._store.change(rules.entries, rules.size)
        now = self._clock()
        for key, stored in self._store.items():
            has_query, status = stored.target.query is not None, stored.answer.status
            usual = rules.freshness.of(stored.item, has_query, status, now) if rules.enabled else None
            if usual is None:
                self._store.forget(key)
            else:
                shorter = stored.lifetime.at_most(usual.fresh_until, usual.stale_until)
                self._store.limit(stored, shorter)

    def entry(self, target: Target, now: float) -> Stored | None:
        """What is kept of it, if it is there and in its time: good as long as `now` is before its `until`."""
        stored = self._store.get(target.key)
        return None if stored is None or now >= stored.until else stored

    def fresh(self, target: Target, now: float) -> Answer | None:
        """The answer, if it is there and in its time."""
        stored = self.entry(target, now)
        if stored is None:
            return None
        stored.hits += 1
        stored.used_at = now
        return stored.answer

    def spare(self, target: Target) -> Served | None:
        """An answer beyond its time that is better than none."""
        old = self._store.get(target.key)
        return self._stale(old) if old is not None and self._is_good(old, tried=True) else None

    def has_failed(self, target: Target) -> bool:
        """Whether the service could not be asked for it just now, and an old answer will do."""
        if self._clock() >= self._failed.get(target.key, 0.0):
            return False
        old = self._store.get(target.key)
        return old is not None and self._is_good(old, tried=False)

    def is_asked(self, target: Target) -> bool:
        """Whether the service is being asked for it: who asks too costs nothing."""
        return target.key in self._flights

    async def read(
        self,
        target: Target,
        item: ItemClass,
        caller: Hashable,
        until: float,
        allow: Callable[[Target], bool],
        *,
        cached: bool = True,
    ) -> Served:
        """The item, from the store if `cached`; else from the service, in the caller's turn, by one call for
        all who wait. `allow` is asked before a redirect to the path with or without its last slash.

        Raises Refused. `until` is the caller's deadline.
        """
        if item is ItemClass.NEVER:
            self.misses += 1
            await self._gate.turn(caller, until)
            return Served(await self._reader.read(target, item, allow))
        cached = cached and self._rules.enabled
        if cached and (answer := self.fresh(target, self._clock())) is not None:
            return Served(answer)
        self.misses += 1
        asked = self._ask(target, item, caller, until, allow)
        old = self._store.get(target.key) if cached else None
        if old is None or not self._is_good(old, tried=True):
            answer = await asked
        else:
            asking = asyncio.get_running_loop().create_task(asked)
            asking.add_done_callback(look_at)
            await asyncio.wait((asking,), timeout=self._patience(old, until))
            if not asking.done() or _is_failure(asking):
                self._failed[target.key] = self._clock() + _RETRY
                if (spare := self.spare(target)) is not None:
                    return spare
            answer = await asking
        if caller != OURS and (stored := self._store.get(target.key)) is not None:
            stored.used_at = self._clock()
        return Served(answer)

    def may_ask(self, target: Target, *, cached: bool) -> bool:
        """Whether `ask` may be: the service is not being asked for it, nothing has to be waited for before it
        is, and nothing is kept that would do if it cannot be."""
        if not (self._reader.ready and self._flights.may_begin(target.key)):
            return False
        old = self._store.get(target.key) if cached and self._rules.enabled else None
        return old is None or not self._is_good(old, tried=True)

    def ask(
        self,
        target: Target,
        item: ItemClass,
        caller: Hashable,
        allow: Callable[[Target], bool],
        told: Callable[[Answer | Exception], None],
    ) -> None:
        """Reads as `read` does, at once and without a task; `told` gets what that would return or raise."""
        self.misses += 1
        asked, removals = self._clock(), self._roles.removals

        def over(result: Answer | Exception) -> None:
            if not isinstance(result, Exception):
                try:
                    self._got(target, item, caller, result, asked, removals)
                except Exception as error:  # a defect of ours: whoever waits is told
                    result = error
            self._flights.end(target.key, result)
            if (stored := self._store.get(target.key)) is not None:
                stored.used_at = self._clock()
            told(result)

        self._reader.ask(target, item, allow, over)
        self._flights.begin(target.key)  # never over before

    def tend(self) -> None:
        """Asks ahead for credentials that are in use, and whether their roles are still there; forgets
        secrets whose time is over. To be called every second or so."""
        now = self._clock()
        for key, stored in self._store.items():
            renew_at = stored.lifetime.renew_at
            if now >= stored.lifetime.stale_until and (stored.secret or stored.item in _SECRET):
                self._store.forget(key)
            elif renew_at is not None and now >= renew_at and stored.used_at >= stored.got:
                stored.lifetime = replace(stored.lifetime, renew_at=now + _RETRY)
                self._start(stored.target, stored.item)
        for roles in self._roles.due(now):
            self._start(roles, ItemClass.LISTING)

    async def warm(self, target: Target, item: ItemClass) -> None:
        """Reads an item that somebody will ask for. Raises Refused."""
        if self._rules.enabled and self._store.get(target.key) is None:
            await self._ask(target, item, OURS, math.inf, target.is_twin)

    def hot(self, count: int) -> list[Target]:
        """The items asked for most, those without a query: a query may be a nonce."""
        known = [
            stored
            for _, stored in self._store.items()
            if stored.target.query is None and stored.hits and stored.answer.status == 200
        ]
        known.sort(key=lambda stored: stored.hits, reverse=True)
        return [stored.target for stored in known[:count]]

    def _start(self, target: Target, item: ItemClass) -> None:
        if target.key in self._flights:
            return
        asked = self._ask(target, item, OURS, self._clock() + _AHEAD, target.is_twin)
        task = asyncio.get_running_loop().create_task(asked)
        task.add_done_callback(look_at)

    async def _ask(
        self,
        target: Target,
        item: ItemClass,
        caller: Hashable,
        until: float,
        allow: Callable[[Target], bool],
    ) -> Answer:
        async def fetch() -> Answer:
            asked, removals = self._clock(), self._roles.removals
            answer = await self._reader.read(target, item, allow)
            self._got(target, item, caller, answer, asked, removals)
            return answer

        return await self._flights.join(target.key, caller, until, fetch)

    def _got(
        self, target: Target, item: ItemClass, caller: Hashable, answer: Answer, asked: float, removals: int
    ) -> None:
        """Keeps an answer that was asked for at that time, when so many roles had been removed."""
        overtaken = removals != self._roles.removals
        self._note(target, item, answer, asked)
        old, kept = self._store.get(target.key), self._kept(target, item, answer)
        if kept is not None and not (overtaken and kept.secret):
            # Whoever asked for it first goes on owning it.
            kept.owner, kept.hits = (old.owner, old.hits) if old else (caller, 0)
            self._store.put(target.key, kept)
        elif answer.status < 500 and answer.status != 429:
            self._store.forget(target.key)  # whatever it was, it is no more

    def _note(self, target: Target, item: ItemClass, answer: Answer, asked: float) -> None:
        """Learns from an answer what it says of others: the service's time, and which roles there are."""
        now = self._clock()
        date = dict(answer.headers).get(b"Date")
        if date is not None and answer.status in (200, 404) and (seconds := http_date(date)) is not None:
            jumps = self._service_clock.jumps
            self._service_clock.heard(seconds, asked, now)
            if self._service_clock.jumps != jumps:  # what was judged by it tells nothing any more
                self._store.forget_where(lambda stored: stored.secret)
        self._roles.note(target, item, answer, now)

    def _kept(self, target: Target, item: ItemClass, answer: Answer) -> Stored | None:
        """The answer for the store; None: not to be kept."""
        if not self._rules.enabled or not answer.complete:
            return None
        now = self._clock()
        usual = self._rules.freshness.of(item, target.query is not None, answer.status, now)
        if usual is None:
            return None
        sets: tuple[CredentialTimes, ...] | None = ()
        if item is ItemClass.CREDENTIALS and answer.status == 200:
            sets = None if (times := credential_times(answer.body)) is None else (times,)
        elif item is not ItemClass.USER_DATA and answer.status == 200:
            # Whatever the path, what holds credentials is kept no longer than these.
            sets = sets_within(answer.body)
        if sets is None:
            return None
        lifetime = usual
        for times in sets:
            left = self._service_clock.left(times.expires, now)
            own = of_credentials(times, left, now, self._jitter())
            if own is None:
                return None
            if item is ItemClass.CREDENTIALS:
                lifetime = own
            else:
                until = min(lifetime.fresh_until, own.fresh_until)
                lifetime = Lifetime(until, until)
        # Served again it would tell a wrong time, which clients take for their clock's fault.
        headers = tuple(one for one in answer.headers if one[0].lower() != b"date")
        return Stored(target, item, replace(answer, headers=headers), lifetime, now, OURS, bool(sets))

    def _is_good(self, stored: Stored, tried: bool) -> bool:
        """Whether an old answer will do, when the service could not be asked (`tried`), or was not."""
        now, lifetime = self._clock(), stored.lifetime
        return now < lifetime.stale_until and (tried or now < lifetime.urgent_from)

    def _patience(self, old: Stored, until: float) -> float:
        now = self._clock()
        left = max(0.0, until - now - _MARGIN)
        return left if now >= old.lifetime.urgent_from else min(_STALE_AFTER, left)

    def _stale(self, stored: Stored) -> Served:
        stored.hits += 1
        stored.used_at = self._clock()
        answer = stored.answer
        return Served(replace(answer, headers=(*answer.headers, _MARK)), True)


def _is_failure(asking: asyncio.Task[Answer]) -> bool:
    if asking.cancelled() or (error := asking.exception()) is None:
        return not asking.cancelled() and (asking.result().status >= 500 or asking.result().status == 429)
    return isinstance(error, Refused)
