"""The redirect in the daemon's life, on a real kernel, with a house of its own."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from collections.abc import Collection, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from imds_proxy.config import Address, Intercept
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.server.intercepting import METHODS
from imds_proxy.server.interception import House, Interception
from imds_proxy.server.listener import Listener, bind
from imds_proxy.server.log import Log
from netns import everything, ip, nft, own_network
from plans import SERVICES

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _network_with_a_route() -> Iterator[None]:
    with own_network():
        ip("link add name there type bridge")
        ip("addr add 10.0.0.1/24 dev there")
        ip("link set there up")
        ip("route add default via 10.0.0.2")
        yield


@dataclass
class Trial:
    """An interception, what it asked of its house, and its log."""

    directory: Path
    config: Intercept = field(default_factory=Intercept)
    now: float = 1000.0
    marks: list[int | None] = field(default_factory=list)
    dismissed: list[Collection[str]] = field(default_factory=list)
    stream: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.log = Log("json", self.stream)

    def make(self, methods: Any = METHODS) -> Interception:
        def listen(address: Address) -> Listener:
            return Listener(bind(address, 1), lambda batch: None)

        async def dismiss(hosts: Collection[str]) -> None:
            self.dismissed.append(hosts)

        house = House(listen, self.marks.append, lambda: (), dismiss)
        return Interception(self.config, SERVICES, methods, house, self.log, lambda: self.now, self.directory)

    def events(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 30))


@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_up_twice_is_once_and_down_leaves_nothing(trial: Trial, on_failure: Any) -> None:
    trial.config = replace(trial.config, on_failure=on_failure)
    before = everything()

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        once = nft("list ruleset", "-s")
        await interception.up()
        assert nft("list ruleset", "-s") == once
        assert (await interception.report()).state == "in-force"
        assert await interception.down()
        assert not await interception.down()
        assert (await interception.report()).state == "off"

    run(main())
    assert everything() == before
    assert trial.marks == [200, None]
    assert trial.dismissed == [["169.254.100.200", "fd64:64c8::200"]]
    assert [event["event"] for event in trial.events()] == ["intercepting", "not-intercepting"]


def failing(trial: Trial, methods: Any = METHODS) -> InterceptError:
    """Why it does not go up; and that it then leaves nothing."""
    before = everything()

    async def main() -> InterceptError:
        with pytest.raises(InterceptError) as error:
            await trial.make(methods).up()
        return error.value

    error = run(main())
    assert everything() == before
    return error


def test_a_busy_port_is_named(trial: Trial) -> None:
    ip("addr add 169.254.100.200/32 dev lo")
    with socket.create_server(("169.254.100.200", 200)):
        error = failing(trial)
    assert error.slug == "port-busy"
    assert "another program listens at 169.254.100.200:200; stop it (ss -ltnp 'sport = :200')" in str(error)


def test_a_busy_port_on_a_wildcard_is_named_too(trial: Trial) -> None:
    with socket.create_server(("0.0.0.0", 200)):
        assert failing(trial).slug == "port-busy"


def test_an_address_in_use_is_named(trial: Trial) -> None:
    ip("addr add 169.254.100.200/16 dev there")
    assert "169.254.100.200 is already an address of there" in str(failing(trial))


def test_no_route_is_named(trial: Trial) -> None:
    ip("route del default")
    assert failing(trial).slug == "no-route"


def test_a_method_that_fails_leaves_nothing(trial: Trial) -> None:
    class Broken(NftablesRedirect):
        def up(self) -> None:
            raise InterceptError("slug", "it is broken")

    trial.config = replace(trial.config, method="nftables")
    assert str(failing(trial, {"nftables": Broken})) == "it is broken"


def test_without_ipv6_the_rest_is_redirected_and_it_is_told(trial: Trial) -> None:
    Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1")

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        report = await interception.report()
        assert report.listeners == ["169.254.100.200:200"]
        assert report.notes == ["IPv6 is off on lo: calls by IPv6 are not redirected"]
        await interception.down()

    run(main())


def test_a_firewall_of_the_service_is_told_since_the_redirect_goes_past_it(trial: Trial) -> None:
    nft(
        "add table ip x; add chain ip x out { type filter hook output priority 0; };"
        "add rule ip x out ip daddr 100.100.100.200 meta skuid != 0 drop"
    )

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        (note,) = (await interception.report()).notes
        assert note.startswith("table ip x, chain out refuses calls to the service")
        await interception.down()

    run(main())
    assert trial.events()[0]["notes"][0].startswith("table ip x, chain out refuses")


def test_what_is_flushed_is_put_back_within_a_second_and_logged(trial: Trial) -> None:
    trial.config = replace(trial.config, on_failure="closed")

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        before = nft("list ruleset", "-s")
        watching = asyncio.ensure_future(interception.watch())
        nft("flush ruleset")
        while nft("list ruleset", "-s") != before or "put-back" not in trial.stream.getvalue():
            await asyncio.sleep(0.02)  # bounded by `run`
        watching.cancel()
        await interception.down()

    run(main())
    events = {event["event"]: event for event in trial.events()}
    assert "was removed by another program, and is put back" in events["redirect-put-back"]["message"]


def test_a_daemon_that_stood_still_says_how_long(trial: Trial) -> None:
    async def main() -> None:
        interception = trial.make()
        await interception.up()
        watching = asyncio.ensure_future(interception.watch())
        trial.now += 7
        await asyncio.sleep(0.7)
        watching.cancel()
        await interception.down()

    run(main())
    (lapsed,) = [event for event in trial.events() if event["event"] == "redirect-lapsed"]
    assert lapsed["seconds"] == 7.0


def test_closed_begins_when_cloud_init_is_done(trial: Trial) -> None:
    trial.config = replace(trial.config, on_failure="closed")
    (trial.directory / "enabled").touch()

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        assert (await interception.report()).held_by == "owner-table"
        watching = asyncio.ensure_future(interception.watch())
        (trial.directory / "result.json").touch()
        while (await interception.report()).held_by != "table":
            await asyncio.sleep(0.02)
        watching.cancel()
        assert "valid_lft forever" in ip("addr show to 169.254.100.200")
        await interception.down()

    run(main())
    assert [event["event"] for event in trial.events()] == ["intercepting", "closed", "not-intercepting"]


@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_a_daemon_that_stops_opens_the_way_or_leaves_what_refuses(trial: Trial, on_failure: Any) -> None:
    trial.config = replace(trial.config, on_failure=on_failure)
    before = everything()

    async def main() -> None:
        interception = trial.make()
        await interception.up()
        interception.release()
        for listener in interception.listeners:
            listener.close()
        interception.finish()

    run(main())
    assert (everything() == before) == (on_failure == "open")
    assert ("169.254.100.200" in ip("addr")) == (on_failure == "closed")


def test_takeover_closes_what_goes_past_and_logs_how_many(trial: Trial) -> None:
    async def main() -> int:
        interception = trial.make()
        await interception.up()
        closed = await interception.take_over()
        await interception.down()
        return closed

    assert run(main()) == 0
    assert trial.events()[1]["count"] == 0


def test_other_tools_that_hold_the_rules_for_long_do_not_hold_the_loop(trial: Trial) -> None:
    class Slow(NftablesRedirect):
        def renew(self) -> str | None:
            time.sleep(1.5)  # as the kernel does while another transaction is applied
            return super().renew()

    async def main() -> float:
        interception = trial.make({"nftables": Slow, "ebpf": METHODS["ebpf"]})
        await interception.up()
        watching = asyncio.ensure_future(interception.watch())
        longest, last = 0.0, time.monotonic()
        until = last + 2.5
        while last < until:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        watching.cancel()
        interception.release()  # waits for the renewal under way, and nothing comes after it
        assert "dnat ip" not in nft("list ruleset")
        for listener in interception.listeners:
            listener.close()
        interception.finish()
        return longest

    assert run(main()) < 1.2
    assert nft("list ruleset") == ""
