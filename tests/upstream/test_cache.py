"""The cache: what is asked of the service, when, and what is answered while it cannot be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from clocked import LISTING, ROLE, ClockedService, rules
from imds_proxy.config import Cache
from imds_proxy.errors import Refused
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.target import canonical_target

T = TypeVar("T")
HOUR = 3600.0


@pytest.fixture(autouse=True, params=["read", "ask"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is the same whether a task reads or a callback is told."""
    monkeypatch.setattr(ClockedService, "way", request.param)


def before(
    talk: Callable[[ClockedService], Awaitable[T]], cache: Cache | None = None, dates: bool = True
) -> T:
    async def main() -> T:
        service = ClockedService(cache or Cache(), dates)
        return await asyncio.wait_for(talk(service), 10)

    return asyncio.run(main())


def test_a_static_item_is_asked_for_once_and_served_without_the_date_of_then() -> None:
    async def talk(service: ClockedService) -> None:
        first = await service.get("meta-data/mac")
        service.now += 3600
        again = await service.get("meta-data/mac")
        assert service.asked == ["meta-data/mac"]
        assert again.body == first.body
        assert b"Date" not in dict(again.headers)

    before(talk)


@pytest.mark.parametrize(
    ("item", "seconds"),
    [
        ("meta-data/hostname", 60.0),
        ("meta-data/instance/spot/termination-time", 5.0),
        ("meta-data/", 10.0),
        ("meta-data/all", 5.0),
        ("user-data", 600.0),
        ("dynamic/instance-identity/document?audience=a", 60.0),
    ],
)
def test_an_item_is_asked_for_again_when_its_time_is_over(item: str, seconds: float) -> None:
    async def talk(service: ClockedService) -> None:
        await service.get(item)
        service.now += seconds - 0.1
        await service.get(item)
        assert len(service.asked) == 1
        service.now += 0.2
        await service.get(item)
        assert len(service.asked) == 2

    before(talk)


@pytest.mark.parametrize(
    "item",
    ["dynamic/instance-identity/pkcs7?audience=1", "global-config/aliyun-assist-server-url", "new?n=1"],
)
def test_nonces_and_secrets_of_one_use_are_never_kept(item: str) -> None:
    async def talk(service: ClockedService) -> None:
        await service.get(item)
        await service.get(item)
        assert len(service.asked) == 2
        assert len(service.cache) == 0

    before(talk)


def test_another_query_is_another_item() -> None:
    async def talk(service: ClockedService) -> None:
        await service.get("dynamic/instance-identity/document?audience=a")
        await service.get("dynamic/instance-identity/document?audience=b")
        await service.get("dynamic/instance-identity/document?audience=b")
        assert len(service.asked) == 2

    before(talk)


@pytest.mark.parametrize("status", [429, 500, 503, 400, 403])
def test_a_failure_is_kept_by_nobody_and_reaches_who_asked(status: int) -> None:
    async def talk(service: ClockedService) -> None:
        service.values["meta-data/mac"] = plain(status, b"no")
        assert (await service.get("meta-data/mac")).status == status
        del service.values["meta-data/mac"]
        assert (await service.get("meta-data/mac")).status == 200

    before(talk)


def test_that_an_item_is_missing_is_kept_for_seconds_only() -> None:
    async def talk(service: ClockedService) -> None:
        service.values["meta-data/eipv4"] = plain(404, b"Not Found")
        assert (await service.get("meta-data/eipv4")).status == 404
        del service.values["meta-data/eipv4"]
        assert (await service.get("meta-data/eipv4")).status == 404
        service.now += 5.1
        assert (await service.get("meta-data/eipv4")).status == 200

    before(talk)


def test_many_who_wait_cause_one_call_and_one_who_leaves_stops_nobody() -> None:
    async def talk(service: ClockedService) -> None:
        service.delay = 0.05
        waiting = [asyncio.ensure_future(service.get("meta-data/hostname", str(n))) for n in range(200)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        found = await asyncio.gather(*waiting[1:])
        assert {one.body for one in found} == {b"value of meta-data/hostname"}
        assert len(service.asked) == 1

    before(talk)


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    async def talk(service: ClockedService) -> None:
        service.delay = 0.02
        service.down("meta-data/hostname")
        found = await asyncio.gather(
            *(service.get("meta-data/hostname", str(n)) for n in range(20)), return_exceptions=True
        )
        assert all(isinstance(one, Refused) for one in found)
        assert len(service.asked) == 1
        del service.values["meta-data/hostname"]
        assert (await service.get("meta-data/hostname")).status == 200

    before(talk)


def test_while_the_service_is_down_static_and_slow_items_are_served_stale_and_marked() -> None:
    async def talk(service: ClockedService) -> None:
        for item in ("meta-data/mac", "meta-data/hostname"):
            await service.get(item)
            service.down(item)
        service.now += 25 * HOUR
        assert dict((await service.get("meta-data/mac")).headers)[b"X-Imds-Proxy"] == b"stale"
        with pytest.raises(Refused):  # an hour and a day: too old
            service.now += 24 * HOUR
            await service.get("meta-data/hostname")

    before(talk)


@pytest.mark.parametrize("failure", [429, 500, 503])
def test_a_service_that_throttles_or_fails_is_down_too(failure: int) -> None:
    async def talk(service: ClockedService) -> None:
        await service.get("meta-data/hostname")
        service.values["meta-data/hostname"] = plain(failure, b"no")
        service.now += 61
        assert (await service.get("meta-data/hostname")).body == b"value of meta-data/hostname"

    before(talk)


@pytest.mark.parametrize(
    "item", ["meta-data/instance/spot/termination-time", LISTING, "user-data", "meta-data/all"]
)
def test_what_is_volatile_or_secret_is_never_served_stale(item: str) -> None:
    async def talk(service: ClockedService) -> None:
        await service.get(item)
        service.down(item)
        service.now += 601
        with pytest.raises(Refused):
            await service.get(item)

    before(talk)


def test_a_hanging_service_costs_a_quarter_of_a_second_where_an_old_answer_will_do() -> None:
    async def talk(service: ClockedService) -> float:
        await service.get("meta-data/hostname")
        service.now += 61
        service.delay = 5
        began = time.monotonic()
        await service.get("meta-data/hostname")
        return time.monotonic() - began

    assert before(talk) < 0.4


def test_credentials_are_asked_for_once_until_half_an_hour_before_their_end() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.now += 5.49 * HOUR
        await service.get(ROLE)
        assert len(service.asked) == 1

    before(talk)


def test_they_are_renewed_ahead_while_somebody_uses_them_and_not_after() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        await service.get(ROLE)
        service.now += 5.5 * HOUR + 2
        service.offer(6 * HOUR)
        service.cache.tend()
        await asyncio.sleep(0.01)
        assert service.asked.count(ROLE) == 2
        service.now += 5.5 * HOUR + 2
        service.cache.tend()  # nobody asked since
        await asyncio.sleep(0.01)
        assert service.asked.count(ROLE) == 2
        service.now += HOUR
        service.cache.tend()
        assert len(service.cache) == 0

    before(talk)


def test_a_newer_set_is_noticed_within_seconds_in_the_last_half_hour() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(29 * 60)
        old = await service.get(ROLE)
        service.now += 5
        service.offer(6 * HOUR)
        assert (await service.get(ROLE)).body == old.body
        service.now += 6
        assert (await service.get(ROLE)).body != old.body
        service.now += HOUR
        await service.get(ROLE)
        assert len(service.asked) == 2

    before(talk)


@pytest.mark.parametrize(("minutes", "status"), [(29, 200), (14, 200), (6, 200), (4.9, 503), (-1, 503)])
def test_while_the_service_is_down_a_set_is_good_until_five_minutes_before_its_end(
    minutes: float, status: int
) -> None:
    async def talk(service: ClockedService) -> int:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.down(ROLE)
        service.now += 6 * HOUR - minutes * 60 - 1
        try:
            return (await service.get(ROLE)).status
        except Refused as error:
            return error.refusal.status

    assert before(talk) == status


def test_below_fifteen_minutes_a_slow_service_is_waited_for() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(14 * 60)
        old = await service.get(ROLE)
        service.offer(6 * HOUR)
        service.now += 2
        service.delay = 0.4
        target = canonical_target(f"/latest/{ROLE}".encode())
        until = service.clock() + 0.9
        served = await service.cache.read(
            target, service.classes.classify(target), "a", until, lambda _: True
        )
        assert served.answer.body != old.body

    before(talk)


def test_the_end_is_judged_by_the_services_clock_and_a_jump_of_it_ends_what_was_kept() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.ahead += 7 * HOUR  # its clock was wrong, or ours: the set is over
        await service.get("meta-data/mac")
        service.down(ROLE)
        with pytest.raises(Refused):
            await service.get(ROLE)

    before(talk)


def test_without_a_date_a_set_is_asked_for_again_in_ten_minutes() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.now += 599
        await service.get(ROLE)
        assert len(service.asked) == 1
        service.now += 2
        await service.get(ROLE)
        assert len(service.asked) == 2
        service.down(ROLE)
        service.now += 1501
        with pytest.raises(Refused):
            await service.get(ROLE)

    before(talk, dates=False)


@pytest.mark.parametrize("seen", ["role", "listing", "other"])
def test_a_role_that_is_gone_is_forgotten_at_once_by_every_name(seen: str) -> None:
    async def talk(service: ClockedService) -> None:
        other = ROLE.replace("meta-data", "META-DATA")
        service.offer(6 * HOUR)
        service.offer(6 * HOUR, other)
        await service.get(ROLE)
        await service.get(other)
        service.values[ROLE] = service.values[other] = plain(404, b"Not Found")
        service.values[LISTING] = plain(404, b"Not Found") if seen == "listing" else plain(200, b"another")
        if seen == "role":
            await service.get(ROLE, cached=False)
        else:
            await service.get(LISTING)
        assert (await service.get(other)).status == 404

    before(talk)


def test_while_credentials_are_used_their_role_is_looked_for_once_a_minute() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        service.values[LISTING] = plain(200, b"demo-role")
        await service.get(LISTING)
        await service.get(ROLE)
        await service.get(ROLE)
        service.values[ROLE] = service.values[LISTING] = plain(404, b"Not Found")
        service.now += 61
        service.cache.tend()
        await asyncio.sleep(0.01)
        assert (await service.get(ROLE)).status == 404

    before(talk)


def test_a_role_that_came_is_no_longer_missing() -> None:
    async def talk(service: ClockedService) -> None:
        service.values[ROLE] = plain(404, b"Not Found")
        assert (await service.get(ROLE)).status == 404
        service.offer(6 * HOUR)
        service.values[LISTING] = plain(200, b"demo-role")
        await service.get(LISTING)
        assert (await service.get(ROLE)).status == 200

    before(talk)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"not json", b'{"Code":"Failed","Expiration":"2099-01-01T00:00:00Z"}', b'{"Code":"Success"}'],
)
def test_what_is_not_surely_a_set_of_credentials_is_not_kept(body: bytes) -> None:
    async def talk(service: ClockedService) -> None:
        service.values[ROLE] = plain(200, body)
        assert (await service.get(ROLE)).body == body
        await service.get(ROLE)
        assert len(service.asked) == 2

    before(talk)


def test_who_must_not_be_served_from_the_cache_is_not() -> None:
    async def talk(service: ClockedService) -> None:
        await service.get("meta-data/mac")
        await service.get("meta-data/mac", cached=False)
        assert len(service.asked) == 2

    before(talk)


def test_a_cache_that_is_off_keeps_nothing_and_what_it_had_is_gone() -> None:
    async def talk(service: ClockedService) -> None:
        await service.get("meta-data/mac")
        service.cache.change(rules(Cache(enabled=False)))
        await service.get("meta-data/mac")
        await service.get("meta-data/mac")
        assert len(service.asked) == 3

    before(talk)


def test_hot_items_are_names_without_queries_the_most_asked_for_first() -> None:
    async def talk(service: ClockedService) -> list[str]:
        for name, count in (("meta-data/mac", 3), ("meta-data/hostname", 5), ("meta-data/vpc-id", 1)):
            for _ in range(count):
                await service.get(name)
        for _ in range(9):
            await service.get("dynamic/instance-identity/document?audience=secret")
        return [target.text for target in service.cache.hot(9)]

    assert before(talk) == ["/latest/meta-data/hostname", "/latest/meta-data/mac"]


def test_all_items_are_kept_no_longer_than_the_credentials_in_them() -> None:
    async def talk(service: ClockedService, left: float) -> float:
        service.offer(left, "meta-data/all", extra='"AccessKeySecret":"s"')
        await service.get("meta-data/all")
        for tenth in range(1, 60):
            service.now += 0.1
            await service.get("meta-data/all")
            if len(service.asked) > 1:
                return tenth / 10
        return 6.0

    for left, seconds in ((6 * HOUR, 5.0), (20 * 60.0, 5.0), (900 + 3.0, 2.0), (14 * 60.0, 0.1), (60.0, 0.1)):
        # A Date is a second that may be almost over.
        assert before(lambda service, left=left: talk(service, left)) == pytest.approx(seconds, abs=0.11)  # type: ignore[misc]


def test_whatever_the_path_what_holds_credentials_is_kept_as_such_or_not_at_all() -> None:
    async def talk(service: ClockedService) -> None:
        odd = "meta-data/hostname"
        service.offer(14 * 60, odd, extra='"SecurityToken":"s"')
        await service.get(odd)
        await service.get(odd)
        assert len(service.asked) == 2
        service.values[odd] = plain(200, b"SecurityToken=s")
        await service.get(odd)
        await service.get(odd)
        assert len(service.asked) == 4
        service.down(odd)
        with pytest.raises(Refused):
            await service.get(odd)

    before(talk)


def test_an_answer_that_may_have_been_cut_is_passed_on_and_not_kept() -> None:
    async def talk(service: ClockedService) -> None:
        service.values["meta-data/mac"] = replace(plain(200, b"00:16"), complete=False)
        assert (await service.get("meta-data/mac")).body == b"00:16"
        await service.get("meta-data/mac")
        assert len(service.asked) == 2

    before(talk)


def test_who_has_waited_in_vain_for_a_hanging_service_spares_the_next_the_wait() -> None:
    async def talk(service: ClockedService) -> None:
        target = canonical_target(b"/latest/meta-data/hostname")
        await service.get("meta-data/hostname")
        service.now += 61
        service.delay = 5
        await service.get("meta-data/hostname")
        assert service.cache.has_failed(target)
        service.now += 0.6
        assert not service.cache.has_failed(target)  # and is asked again soon

    before(talk)


def test_a_caller_that_asked_once_is_using_its_credentials() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.now += 5.5 * HOUR + 2
        service.cache.tend()
        await asyncio.sleep(0.01)
        assert service.asked.count(ROLE) == 2

    before(talk)


def test_a_role_asked_for_by_name_alone_is_looked_for_too_and_no_longer_when_nobody_asks() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        service.values[LISTING] = plain(200, b"demo-role")
        await service.get(ROLE)
        for _ in range(20 * 60):
            service.now += 1
            service.cache.tend()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert 4 <= service.asked.count(LISTING) <= 5  # of the 5 minutes after the last use
        service.values[ROLE] = service.values[LISTING] = plain(404, b"Not Found")
        await service.get(ROLE)
        service.cache.tend()
        await asyncio.sleep(0.01)
        assert (await service.get(ROLE)).status == 404

    before(talk)


def test_with_a_role_that_is_gone_goes_all_that_speaks_of_it() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        service.offer(6 * HOUR, "meta-data/all", extra='"AccessKeySecret":"s","x":"demo-role"')
        service.values[LISTING] = plain(200, b"demo-role")
        for item in (ROLE, LISTING, "meta-data/all", "meta-data/mac"):
            await service.get(item)
        gone = plain(404, b"Not Found")
        service.values.update({ROLE: gone, LISTING: gone, "meta-data/all": plain(200, b"{}")})
        await service.get(ROLE, cached=False)
        assert (await service.get(LISTING)).status == 404
        assert (await service.get("meta-data/all")).body == b"{}"
        assert service.asked.count("meta-data/mac") == 1
        await service.get("meta-data/mac")
        assert service.asked.count("meta-data/mac") == 1

    before(talk)


def test_credentials_that_were_asked_for_before_their_role_went_are_not_kept() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        await service.get(ROLE)
        service.delay = 0.05
        late = asyncio.ensure_future(service.get(ROLE, "b", cached=False))
        await asyncio.sleep(0.01)
        service.delay, service.values[LISTING] = 0.0, plain(404, b"Not Found")
        await service.get(LISTING)
        assert (await late).status == 200  # it was, when it was asked
        service.values[ROLE] = plain(404, b"Not Found")
        assert (await service.get(ROLE)).status == 404

    before(talk)


def test_secrets_whose_time_is_over_are_forgotten_though_nobody_asks() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        service.values["meta-data/all"] = plain(200, b"{}")
        for item in (ROLE, "meta-data/all", "user-data", "meta-data/mac"):
            await service.get(item)
        service.down(ROLE)
        service.now += 5 * HOUR + 56 * 60
        service.cache.tend()
        assert len(service.cache) == 1  # what is fixed for the boot is no secret

    before(talk)


def test_shorter_times_hold_for_what_is_kept_already() -> None:
    async def talk(service: ClockedService) -> None:
        for item in ("meta-data/mac", "meta-data/hostname", ROLE):
            service.offer(6 * HOUR)
            await service.get(item)
        service.cache.change(rules(Cache(static=10.0, slow=0.0)))
        await service.get("meta-data/hostname")
        assert service.asked.count("meta-data/hostname") == 2
        await service.get("meta-data/mac")
        assert service.asked.count("meta-data/mac") == 1
        service.now += 11
        for item in ("meta-data/mac", ROLE):
            await service.get(item)
        assert service.asked.count("meta-data/mac") == 2
        assert service.asked.count(ROLE) == 1

    before(talk)


def test_an_item_that_is_missing_is_not_hot() -> None:
    async def talk(service: ClockedService) -> None:
        service.values["meta-data/eipv4"] = plain(404, b"Not Found")
        for _ in range(3):
            await service.get("meta-data/eipv4")
        assert service.cache.hot(9) == []

    before(talk)


def test_a_rotation_costs_two_calls_however_many_ask_all_the_time() -> None:
    async def talk(service: ClockedService) -> None:
        service.offer(6 * HOUR)
        service.values[LISTING] = plain(200, b"demo-role")
        end = service.now + 6 * HOUR
        await service.get(ROLE)
        while service.now < end - 1500:  # the successor is offered to the second
            service.now += 1 if service.now > end - 1810 else 60
            if service.now >= end - 1800:
                service.offer(end + 5.5 * HOUR - service.now)
            for caller in "abc":
                await service.get(ROLE, caller)
            service.cache.tend()
            await asyncio.sleep(0)
        assert service.asked.count(ROLE) == 2

    before(talk)


@pytest.mark.parametrize("down", [False, True], ids=["a value", "an error"])
def test_what_one_asked_for_reaches_all_who_come_later_and_nobody_is_left(down: bool) -> None:
    async def talk(service: ClockedService) -> None:
        service.delay = 0.05
        if down:
            service.down("meta-data/hostname")
        waiting = [asyncio.ensure_future(service.get("meta-data/hostname", "0"))]
        await asyncio.sleep(0)
        for number in range(1, 20):
            waiting.append(asyncio.ensure_future(service.get("meta-data/hostname", str(number))))
            await asyncio.sleep(0.001)
        found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 1)
        assert {isinstance(one, Refused) for one in found} == {down}
        assert len(service.asked) == 1
        assert service.cache.misses == 20
        assert not len(service.cache._flights._flights)
        service.values.clear()
        assert (await service.get("meta-data/hostname")).status == 200

    before(talk)


def test_each_call_of_the_service_takes_one_turn_and_who_joins_or_is_served_takes_none() -> None:
    async def talk(service: ClockedService) -> None:
        taken = 0
        take = service.gate.take

        def counted() -> None:
            nonlocal taken
            taken += 1
            take()

        service.gate.take = counted  # type: ignore[method-assign]
        service.delay = 0.01
        for number, item in enumerate(("meta-data/hostname", "meta-data/mac", "new?n=1", "new?n=1"), 1):
            await asyncio.gather(*(service.get(item, caller) for caller in "abc"))
            assert (taken, len(service.asked)) == (number, number)
        await service.get("meta-data/mac")
        assert taken == 4

    before(talk)


def test_it_is_asked_at_once_only_where_nothing_has_to_be_waited_for_and_nothing_old_would_do() -> None:
    async def talk(service: ClockedService) -> None:
        target = canonical_target(b"/latest/meta-data/mac")
        assert service.cache.may_ask(target, cached=True)
        service.ready = False
        assert not service.cache.may_ask(target, cached=True)
        service.ready = True
        await service.get("meta-data/mac")
        service.now += 25 * HOUR
        assert not service.cache.may_ask(target, cached=True)  # an old answer will do, if it comes to that
        assert service.cache.may_ask(target, cached=False)
        service.delay = 0.01
        asking = asyncio.ensure_future(service.get("meta-data/mac", cached=False))
        await asyncio.sleep(0)
        assert not service.cache.may_ask(target, cached=False)  # it is being asked for
        await asking
        service.gate.overloaded(time.monotonic(), retry_after=1)
        assert not service.cache.may_ask(target, cached=False)

    before(talk)


def test_a_defect_in_what_becomes_of_an_answer_reaches_who_asked_and_stays_with_nobody() -> None:
    async def talk(service: ClockedService) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(service.cache._roles, "note", fail)
            await service.get("meta-data/mac")
        assert (await service.get("meta-data/mac")).status == 200

    before(talk)
