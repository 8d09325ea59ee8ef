"""Tokens of callers: given, judged when they come back, and foreign ones tried on the service.

Ties the token book (policy) to the issuer (upstream); knows nothing of connections.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from imds_proxy.errors import DEADLINE, Refused
from imds_proxy.policy.caller import Identity
from imds_proxy.policy.tokenbook import ForeignTokens, TokenBook
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target
from imds_proxy.protocol.tokens import NONCE, Seal, is_token, token_hash
from imds_proxy.upstream.flight import SingleFlight
from imds_proxy.upstream.reader import ServiceReader
from imds_proxy.upstream.tokens import TokenIssuer

_NOTE_AHEAD = 1.0  # seconds: an identity that asks again and again needs a note in the book once a second


class Verdict(Enum):
    """What is known of a presented token."""

    VALID = "valid"
    ELSEWHERE = "elsewhere"  # given to another identity
    INVALID = "invalid"
    FOREIGN = "foreign"  # not given here: only the service can tell


class TokenMaker(Protocol):
    """`tokens: real` or `tokens: sealed`."""

    @property
    def ready(self) -> bool:
        """Whether `judge` can tell now; else `prepare` first."""

    async def prepare(self) -> None:
        """Makes `judge` able to tell. Raises Refused (503)."""

    def again(self, identity: Identity, ttl: int) -> Again | None:
        """A token without waiting, if there is one."""

    async def issue(self, identity: Identity, ttl: int) -> str:
        """A token for `ttl` seconds. Raises Refused (503)."""

    def judge(self, token: str, identity: Identity, now: float) -> Verdict:
        """What is known of a presented token."""

    def valid_until(self, token: str, identity: Identity) -> float:
        """Before which time `judge` will call it valid for this identity; minus infinity where that is not
        known."""


@dataclass(frozen=True, slots=True)
class Again:
    """A token for a caller that asks again. Before `until` it may be given for the same question once more,
    without a note in the book."""

    token: str = field(repr=False)
    until: float


class RealTokens:
    """Real tokens of the service, given to an identity and remembered by hash."""

    def __init__(self, issuer: TokenIssuer, book: TokenBook) -> None:
        self._issuer, self._book = issuer, book

    ready = True

    async def prepare(self) -> None:
        """The book is always there."""

    def again(self, identity: Identity, ttl: int) -> Again | None:
        """The token that this identity has for this TTL, promised anew."""
        issued = self._issuer.again(identity, ttl)
        if issued is None:
            return None
        promised = issued.promised_until + _NOTE_AHEAD
        self._book.give(token_hash(issued.token), identity, promised)
        return Again(issued.token, min(promised - ttl, issued.same_until))

    async def issue(self, identity: Identity, ttl: int) -> str:
        """One PUT upstream for each identity and TTL. Raises Refused(token-unavailable)."""
        issued = await self._issuer.issue(identity, ttl)
        self._book.give(token_hash(issued.token), identity, issued.promised_until)
        return issued.token

    def judge(self, token: str, identity: Identity, now: float) -> Verdict:
        """By the book; a token that is not in it may be the service's own."""
        if not is_token(token):
            return Verdict.INVALID
        grant = self._book.find(token_hash(token))
        if grant is None:
            return Verdict.FOREIGN
        if now >= grant.expires:
            return Verdict.INVALID
        return Verdict.VALID if grant.identity == identity else Verdict.ELSEWHERE

    def valid_until(self, token: str, identity: Identity) -> float:
        """As promised; a promise only ever grows."""
        grant = self._book.find(token_hash(token))
        return grant.expires if grant is not None and grant.identity == identity else -math.inf


class SealedTokens:
    """Tokens minted here. The seal needs the instance id, so the first one waits for the service."""

    def __init__(
        self, make_seal: Callable[[], Coroutine[Any, Any, Seal]], clock: Callable[[], float]
    ) -> None:
        self._make_seal, self._clock = make_seal, clock
        self._seal: Seal | None = None
        self._flight: SingleFlight[Seal] = SingleFlight()

    @property
    def ready(self) -> bool:
        """Whether the seal is there."""
        return self._seal is not None

    def again(self, identity: Identity, ttl: int) -> Again | None:
        """Minting waits for nothing once the seal is there. Each token is another one."""
        if self._seal is None:
            return None
        token = self._seal.mint(_name(identity), self._clock() + ttl, secrets.token_bytes(NONCE))
        return Again(token, -math.inf)

    async def issue(self, identity: Identity, ttl: int) -> str:
        """A fresh token. Raises Refused while the seal cannot be made."""
        await self.prepare()
        again = self.again(identity, ttl)
        if again is None:
            raise AssertionError("the seal was made")
        return again.token

    async def prepare(self) -> None:
        """Makes the seal once. Raises Refused when the instance id cannot be read."""
        if self._seal is None:
            self._seal = await asyncio.shield(self._flight.join("seal", self._make_seal))

    def judge(self, token: str, identity: Identity, now: float) -> Verdict:
        """Opened with the seal; what it does not open may be the service's own."""
        if not is_token(token):
            return Verdict.INVALID
        owner = self._seal.open(token, now) if self._seal else None
        if self._seal is None or owner is None:
            return Verdict.FOREIGN
        return Verdict.VALID if self._seal.is_for(owner, _name(identity)) else Verdict.ELSEWHERE

    def valid_until(self, token: str, identity: Identity) -> float:
        """By the seal."""
        opened = self._seal.expiry(token, _name(identity)) if self._seal else None
        return -math.inf if opened is None else opened


class ForeignDesk:
    """Tokens that were not given here: tried on the service with the very request, under a strict bucket.

    Only where a probe showed that the service refuses a made-up token: else any token would do.
    """

    def __init__(
        self,
        reader: ServiceReader,
        tokens: ForeignTokens,
        probe: tuple[Target, ItemClass],
        clock: Callable[[], float],
    ) -> None:
        """`probe` is an item that every instance has."""
        self._reader, self._tokens, self._clock = reader, tokens, clock
        self._probe_target, self._probe_item = probe
        self._refuses_made_up: bool | None = None
        self._flight: SingleFlight[bool] = SingleFlight()

    def is_accepted(self, token: str, identity: Identity) -> bool:
        """Whether the service took it from this identity within the last 60 s."""
        return self._tokens.is_accepted(token_hash(token), identity, self._clock())

    async def try_on_service(
        self, token: str, identity: Identity, target: Target, item: ItemClass
    ) -> Answer | None:
        """The service's answer to this very request with this very token; None when it is refused.

        Raises Refused for a failure of the service.
        """
        key = token_hash(token)
        if not self._tokens.may_try(key, identity, self._clock()):
            return None
        if not await self.probe():
            return None
        answer = await self._reader.read_with(target, item, token)
        if answer.status in (401, 403):
            self._tokens.refused(key, identity, self._clock())
            return None
        self._tokens.accepted(key, identity, self._clock())
        return answer

    async def probe(self) -> bool:
        """Whether the service refuses a made-up token; asked once, remembered once answered."""
        if self._refuses_made_up is None:
            self._refuses_made_up = await asyncio.shield(self._flight.join("probe", self._ask))
        return self._refuses_made_up

    async def _ask(self) -> bool:
        made_up = secrets.token_urlsafe(32)
        answer = await self._reader.read_with(self._probe_target, self._probe_item, made_up)
        if answer.status in (401, 403):
            return True
        if answer.status == 200:
            return False
        raise Refused(DEADLINE, f"the probe of token checks was answered {answer.status}")


def _name(identity: Identity) -> bytes:
    return repr((identity.uid, identity.unit, identity.container, identity.origin)).encode()
