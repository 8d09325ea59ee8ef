"""Tokens from the real service: one PUT at a time, back-off, the proxy's own token, and callers' ones.

The proxy's own token never leaves this room but in a request to the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from cachetools import LRUCache

from imds_proxy.errors import TOKEN_UNAVAILABLE, Refused
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.protocol.profile import Profile
from imds_proxy.protocol.tokens import is_token
from imds_proxy.upstream.flight import SingleFlight
from imds_proxy.upstream.pool import Pool

_BACKOFF_BASE, _BACKOFF_CAP = 0.05, 1.0  # seconds; the cap is how late a recovery may be noticed
_RENEW_AT = 0.75  # of a token's life; SDKs renew at 3/4 to 4/5
_RENEW_JITTER = 0.1
# Rejections that may each cost a PUT: a revocation storm is survived, but a service that refuses
# everything is not asked for a token each time.
_REJECTIONS_RATE, _REJECTIONS_BURST = 5.0, 20.0
_TTLS_PER_OWNER = 8


class TokenService:
    """The token PUT, with exponential back-off and jitter shared by all who need one."""

    def __init__(
        self,
        pool: Pool,
        profile: Profile,
        headers: tuple[tuple[bytes, bytes], ...],
        patience: float,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """`headers` go on every PUT (Host); `jitter` gives numbers in [0, 1); `patience` in seconds."""
        self._pool, self._profile, self._headers = pool, profile, headers
        self._patience, self._clock, self._jitter = patience, clock, jitter
        self._failures = 0
        self._failing_since = 0.0
        self._not_before = 0.0
        self.puts = 0

    async def put(self, ttl: int) -> str:
        """A token of the service for `ttl` seconds.

        Tries again until the callers' patience is over, then fails at once while the back-off lasts.
        Raises Refused(token-unavailable), a 503, whatever the service said.
        """
        while True:
            now = self._clock()
            if now < self._not_before and self._given_up(now):
                raise self._unavailable(now, "backing off")
            if now < self._not_before:
                await asyncio.sleep(self._not_before - now)
                continue
            self.puts += 1
            try:
                token = await self._put_once(ttl)
            except Refused as error:
                now = self._clock()
                if self._failures == 0:
                    self._failing_since = now
                self._failures += 1
                pause = min(_BACKOFF_CAP, _BACKOFF_BASE * 2 ** min(self._failures - 1, 10))
                self._not_before = now + pause * (0.5 + self._jitter() / 2)
                if self._given_up(self._not_before):
                    raise self._unavailable(now, error.detail or error.refusal.slug) from None
            else:
                self._failures, self._not_before = 0, 0.0
                return token

    def _given_up(self, now: float) -> bool:
        return self._failures > 0 and now - self._failing_since > self._patience * 0.75

    def _unavailable(self, now: float, why: str) -> Refused:
        return Refused(TOKEN_UNAVAILABLE, why, retry_after=max(1, round(self._not_before - now)))

    async def _put_once(self, ttl: int) -> str:
        headers = (*self._headers, (self._profile.ttl_header, b"%d" % ttl), (b"Content-Length", b"0"))
        reply = await self._pool.put(self._profile.token_path, headers)
        token = reply.answer.body.decode("latin-1").rstrip("\r\n")
        if reply.answer.status != 200 or reply.encoding or not is_token(token):
            raise Refused(TOKEN_UNAVAILABLE, f"the token service answered {reply.answer.status}")
        return token


@dataclass(frozen=True, slots=True)
class _Held:
    token: str = field(repr=False)
    renew_at: float
    expires: float


class TokenKeeper:
    """The proxy's own token: fetched once however many wait, renewed ahead of expiry with jitter."""

    def __init__(
        self, service: TokenService, ttl: int, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._service, self._ttl, self._clock, self._jitter = service, ttl, clock, jitter
        self._held: _Held | None = None
        self._flight: SingleFlight[str] = SingleFlight()
        self._rejections = TokenBucket(_REJECTIONS_RATE, _REJECTIONS_BURST, clock())

    def held(self) -> str | None:
        """A token that has life left, if there is one; it is renewed in time."""
        held, now = self._held, self._clock()
        if held is None or now >= held.expires:
            return None
        if now >= held.renew_at:
            self._flight.join("token", self._renew)
        return held.token

    async def get(self) -> str:
        """A token that has life left. Raises Refused(token-unavailable)."""
        held = self.held()
        return held if held is not None else await asyncio.shield(self._flight.join("token", self._renew))

    def reject(self, token: str) -> bool:
        """The service refused `token`: the next `get` fetches another, once for all who saw this.

        False when the service refuses too often to be asked for another one now.
        """
        if self._held is None or self._held.token != token:
            return True  # somebody was here before
        if not self._rejections.take(self._clock()):
            return False
        self._held = None
        return True

    async def _renew(self) -> str:
        asked = self._clock()
        token = await self._service.put(self._ttl)
        life = self._ttl * (_RENEW_AT + _RENEW_JITTER * (self._jitter() - 0.5))
        self._held = _Held(token, asked + life, asked + self._ttl)
        return token


@dataclass(frozen=True, slots=True)
class Issued:
    """A token for a caller, until when it is promised here, and before which time the same question has the
    same answer (seconds, CLOCK_BOOTTIME)."""

    token: str = field(repr=False)
    promised_until: float
    same_until: float


@dataclass(frozen=True, slots=True)
class _Lent:
    token: str = field(repr=False)
    expires: float
    asked: int  # seconds of life that the service was asked for

    def covers_until(self, ttl: int) -> float:
        # Of the provider's longest TTL nothing can be spared: nine tenths of it must do.
        return self.expires - min(ttl, 0.9 * self.asked)

    def issued(self, ttl: int, now: float) -> Issued:
        return Issued(self.token, now + ttl, self.covers_until(ttl))


class TokenIssuer:
    """Real tokens for callers: one PUT upstream for each owner and TTL, given again while enough is left.

    Asked for with life to spare. Where the provider's longest TTL leaves nothing to spare, the last
    tenth is promised here and not by the service: it matters only to a client that keeps a token for
    its whole life and meets the service without the proxy at the end of it.
    """

    def __init__(self, service: TokenService, profile: Profile, clock: Callable[[], float]) -> None:
        self._service, self._profile, self._clock = service, profile, clock
        self._lent: LRUCache[Hashable, dict[int, _Lent]] = LRUCache(1024)
        self._flight: SingleFlight[_Lent] = SingleFlight()

    def again(self, owner: Hashable, ttl: int) -> Issued | None:
        """The token that this owner already has for this TTL, if it still covers what is asked."""
        held, now = self._held_by(owner, ttl), self._clock()
        if held is None or now > held.covers_until(ttl):
            return None
        return held.issued(ttl, now)

    async def issue(self, owner: Hashable, ttl: int) -> Issued:
        """A token for `owner`, valid for `ttl` seconds. Raises Refused(token-unavailable)."""
        again = self.again(owner, ttl)
        if again is not None:
            return again
        life = min(self._profile.ttl_max, ttl + max(60, ttl // 2))
        if ttl not in self._lent.get(owner, {}) and len(self._lent.get(owner, {})) >= _TTLS_PER_OWNER:
            # An owner that asks for ever other TTLs gets one token that covers them all.
            life = self._profile.ttl_max
        held = await asyncio.shield(self._flight.join((owner, life), lambda: self._ask(owner, ttl, life)))
        return held.issued(ttl, self._clock())

    def _held_by(self, owner: Hashable, ttl: int) -> _Lent | None:
        lent = self._lent.get(owner, {})
        if ttl not in lent and len(lent) >= _TTLS_PER_OWNER:
            return max(lent.values(), key=lambda held: held.expires)
        return lent.get(ttl)

    async def _ask(self, owner: Hashable, ttl: int, life: int) -> _Lent:
        asked = self._clock()
        held = _Lent(await self._service.put(life), asked + life, life)
        lent = self._lent.setdefault(owner, {})
        if len(lent) >= _TTLS_PER_OWNER and ttl not in lent:
            del lent[min(lent, key=lambda key: lent[key].expires)]
        lent[ttl] = held
        return held
