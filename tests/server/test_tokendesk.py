"""Tokens of callers: real, sealed and foreign."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from imds_proxy.policy.caller import Identity
from imds_proxy.policy.tokenbook import ForeignTokens, TokenBook
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA, ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.protocol.tokens import Seal
from imds_proxy.server.tokendesk import ForeignDesk, RealTokens, SealedTokens, Verdict
from imds_proxy.upstream.tokens import TokenIssuer

ALICE, BOB = Identity(1000, unit="alice.service"), Identity(1001, unit="bob.service")
TARGET = canonical_target(b"/latest/meta-data/mac")
ITEM = ItemClassifier(ALIBABA).classify(TARGET)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class FakePut:
    puts = 0

    async def put(self, ttl: int) -> str:
        self.puts += 1
        return f"token-{self.puts}=="


def real_tokens(clock: Clock) -> RealTokens:
    return RealTokens(TokenIssuer(FakePut(), ALIBABA, clock), TokenBook())  # type: ignore[arg-type]


def test_a_token_is_valid_for_its_identity_until_the_promised_second() -> None:
    clock = Clock()
    tokens = real_tokens(clock)
    token = asyncio.run(tokens.issue(ALICE, 10))
    assert tokens.judge(token, ALICE, 9.9) is Verdict.VALID
    assert tokens.judge(token, ALICE, 10.0) is Verdict.INVALID
    assert tokens.judge(token, BOB, 5.0) is Verdict.ELSEWHERE
    assert tokens.valid_until(token, ALICE) == 10.0
    assert tokens.valid_until(token, BOB) == tokens.valid_until("made-up", ALICE) == -math.inf


def test_giving_a_token_again_renews_its_promise() -> None:
    clock = Clock()
    tokens = real_tokens(clock)
    first = asyncio.run(tokens.issue(ALICE, 10))
    clock.now = 8.0
    again = tokens.again(ALICE, 10)
    assert again is not None
    assert (again.token, again.until) == (first, 9.0)  # a second later its promise must be noted anew
    assert tokens.judge(first, ALICE, 17.0) is Verdict.VALID


def test_what_cannot_be_a_token_is_invalid_unasked() -> None:
    assert real_tokens(Clock()).judge("a b", ALICE, 0.0) is Verdict.INVALID
    assert real_tokens(Clock()).judge("never-seen", ALICE, 0.0) is Verdict.FOREIGN


def test_sealed_tokens_are_bound_and_expire() -> None:
    async def seal() -> Seal:
        return Seal.derive(b"k" * 32, "boot", "i-1")

    clock = Clock()
    tokens = SealedTokens(seal, clock)
    assert tokens.again(ALICE, 10) is None
    token = asyncio.run(tokens.issue(ALICE, 10))
    assert tokens.judge(token, ALICE, 9.0) is Verdict.VALID
    assert tokens.judge(token, BOB, 9.0) is Verdict.ELSEWHERE
    assert tokens.judge(token, ALICE, 10.0) is Verdict.FOREIGN
    assert tokens.valid_until(token, ALICE) == 10.0
    assert tokens.valid_until(token, BOB) == tokens.valid_until("made-up", ALICE) == -math.inf


@dataclass
class FakeReader:
    """A service that knows one token, or takes any."""

    known: str = "real"
    takes_any: bool = False
    calls: list[str] = field(default_factory=list)

    async def read_with(self, target: Target, item: ItemClass, token: str) -> Answer:
        self.calls.append(token)
        status = 200 if self.takes_any or token == self.known else 401
        return Answer(status, b"OK", (), b"")


def desk(reader: FakeReader, clock: Clock) -> ForeignDesk:
    return ForeignDesk(reader, ForeignTokens(), (TARGET, ITEM), clock)  # type: ignore[arg-type]  # a stand-in


def test_a_foreign_token_is_tried_once_and_remembered_for_a_minute_for_that_identity() -> None:
    async def main() -> None:
        clock, reader = Clock(), FakeReader()
        foreign = desk(reader, clock)
        assert await foreign.try_on_service("real", ALICE, TARGET, ITEM) is not None
        assert foreign.is_accepted("real", ALICE)
        assert not foreign.is_accepted("real", BOB)
        clock.now = 60.0
        assert not foreign.is_accepted("real", ALICE)

    asyncio.run(main())


def test_where_any_token_would_do_no_foreign_one_does() -> None:
    async def main() -> int:
        reader = FakeReader(takes_any=True)
        foreign = desk(reader, Clock())
        assert await foreign.try_on_service("made-up", ALICE, TARGET, ITEM) is None
        assert await foreign.try_on_service("made-up", ALICE, TARGET, ITEM) is None
        return len(reader.calls)

    assert asyncio.run(main()) == 1  # the probe


def test_a_stream_of_made_up_tokens_costs_the_service_a_handful_of_calls() -> None:
    async def main() -> int:
        reader = FakeReader()
        foreign = desk(reader, Clock())
        for number in range(1000):
            assert await foreign.try_on_service(f"made-up-{number}", ALICE, TARGET, ITEM) is None
        assert await foreign.try_on_service("real", BOB, TARGET, ITEM) is not None
        return len(reader.calls)

    assert asyncio.run(main()) <= 8
