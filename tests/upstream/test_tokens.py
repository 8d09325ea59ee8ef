"""Tokens of the service: single flight, renewal ahead, back-off, and those lent to callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from imds_proxy.errors import Refused
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.upstream.tokens import TokenIssuer, TokenKeeper, TokenService
from recorded import answers, pool_of, recorded_service, reply


@dataclass
class FakeService:
    """A token service without a socket: counts PUTs and gives numbered tokens."""

    ttls: list[int] = field(default_factory=list)
    failing: bool = False

    async def put(self, ttl: int) -> str:
        self.ttls.append(ttl)
        await asyncio.sleep(0)
        if self.failing:
            raise OSError
        return f"token-{len(self.ttls)}"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def keeper_of(service: FakeService, clock: Clock, ttl: int = 21600) -> TokenKeeper:
    return TokenKeeper(service, ttl, clock, lambda: 0.5)  # type: ignore[arg-type]  # a stand-in


def test_a_thousand_callers_at_cold_start_cause_one_put() -> None:
    async def main() -> int:
        service = FakeService()
        keeper = keeper_of(service, Clock())
        tokens = await asyncio.gather(*(keeper.get() for _ in range(1000)))
        assert set(tokens) == {"token-1"}
        return len(service.ttls)

    assert asyncio.run(main()) == 1


def test_the_token_is_renewed_ahead_of_expiry_while_the_old_one_serves() -> None:
    async def main() -> tuple[str, str]:
        service, clock = FakeService(), Clock()
        keeper = keeper_of(service, clock, ttl=100)
        await keeper.get()
        clock.now += 76
        while_renewing = await keeper.get()
        await asyncio.sleep(0.01)
        return while_renewing, await keeper.get()

    assert asyncio.run(main()) == ("token-1", "token-2")


def test_an_expired_token_is_never_used() -> None:
    async def main() -> str:
        service, clock = FakeService(), Clock()
        keeper = keeper_of(service, clock, ttl=100)
        await keeper.get()
        clock.now += 100
        return await keeper.get()

    assert asyncio.run(main()) == "token-2"


def test_many_rejections_of_one_token_cause_one_renewal() -> None:
    async def main() -> int:
        service = FakeService()
        keeper = keeper_of(service, Clock())
        token = await keeper.get()
        for _ in range(50):
            assert keeper.reject(token)
        await asyncio.gather(*(keeper.get() for _ in range(50)))
        return len(service.ttls)

    assert asyncio.run(main()) == 2


def test_a_service_that_rejects_everything_is_not_asked_for_a_token_each_time() -> None:
    async def main() -> int:
        service = FakeService()
        keeper = keeper_of(service, Clock())
        for _ in range(200):
            keeper.reject(await keeper.get())
        return len(service.ttls)

    assert asyncio.run(main()) <= 21


def on_recorded(raw: bytes, use: Callable[[TokenService], object]) -> object:
    async def main() -> object:
        async with recorded_service(answers(raw)) as recorded:
            pool = pool_of(recorded)
            clock = asyncio.get_running_loop().time
            service = TokenService(pool, ALIBABA, ((b"Host", b"h"),), 0.3, clock, lambda: 0.5)
            try:
                return await use(service)  # type: ignore[misc]
            finally:
                pool.close()

    return asyncio.run(main())


def test_a_newline_after_a_token_is_taken_off() -> None:
    assert on_recorded(reply(b"abc==\n"), lambda service: service.put(60)) == "abc=="


@pytest.mark.parametrize(
    "raw",
    [
        reply(b"no", status=b"403 Forbidden"),
        reply(b"no", status=b"404 Not Found"),
        reply(b"no", status=b"429 Too Many Requests"),
        reply(b"no", status=b"500 Oops"),
        reply(b"<html> not a token"),
        reply(b""),
        reply(b"a" * 3000),
        b"garbage\r\n\r\n",
    ],
)
def test_whatever_the_service_says_instead_of_a_token_is_a_503(raw: bytes) -> None:
    with pytest.raises(Refused) as caught:
        on_recorded(raw, lambda service: service.put(60))
    assert caught.value.refusal.status == 503
    assert caught.value.retry_after is not None


def test_a_failing_token_service_is_asked_ever_more_rarely_and_callers_hear_at_once() -> None:
    async def main() -> tuple[int, float]:
        async with recorded_service(answers(reply(b"no", status=b"500 Oops"))) as recorded:
            pool = pool_of(recorded)
            clock = asyncio.get_running_loop().time
            service = TokenService(pool, ALIBABA, ((b"Host", b"h"),), 0.2, clock, lambda: 0.5)
            end, slowest, first = clock() + 2.0, 0.0, True
            while clock() < end:
                started = clock()
                with pytest.raises(Refused):
                    await service.put(60)
                if not first:
                    slowest = max(slowest, clock() - started)
                first = False
                await asyncio.sleep(0.001)
            pool.close()
            return service.puts, slowest

    puts, slowest = asyncio.run(main())
    assert puts <= 10
    assert slowest < 0.2


def test_one_put_for_each_owner_and_ttl_given_again_while_enough_is_left() -> None:
    async def main() -> list[int]:
        service, clock = FakeService(), Clock()
        issuer = TokenIssuer(service, ALIBABA, clock)  # type: ignore[arg-type]
        first = await issuer.issue("a", 3600)
        clock.now += 1799
        again = await issuer.issue("a", 3600)
        assert again.token == first.token
        assert again.promised_until == clock.now + 3600
        clock.now += 2
        assert (await issuer.issue("a", 3600)).token != first.token
        assert (await issuer.issue("b", 3600)).token != first.token
        return service.ttls

    assert asyncio.run(main()) == [5400, 5400, 5400]


def test_the_longest_ttl_is_given_again_too() -> None:
    async def main() -> int:
        service, clock = FakeService(), Clock()
        issuer = TokenIssuer(service, ALIBABA, clock)  # type: ignore[arg-type]
        for _ in range(100):
            await issuer.issue("sdk", 21600)
            clock.now += 20
        return len(service.ttls)

    assert asyncio.run(main()) == 1


def test_an_owner_that_asks_for_every_ttl_holds_few_tokens() -> None:
    async def main() -> int:
        service, clock = FakeService(), Clock()
        issuer = TokenIssuer(service, ALIBABA, clock)  # type: ignore[arg-type]
        for ttl in range(1, 500):
            await issuer.issue("greedy", ttl)
        return len(service.ttls)

    assert asyncio.run(main()) <= 9
