from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from imds_proxy.config_intercept import Intercept
from imds_proxy.intercept import alone
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.server.intercepting import METHODS
from netns import everything, ip, nft
from plans import PLAN, SERVICES

pytestmark = pytest.mark.usefixtures("network")
_CLOSED = Intercept(on_failure="closed")


@pytest.fixture(autouse=True)
def _a_route(network: None) -> None:
    ip("link add name there type bridge")
    ip("addr add 10.0.0.1/24 dev there")
    ip("link set there up")
    ip("route add default via 10.0.0.2")


def test_open_needs_a_daemon_and_says_so() -> None:
    before = everything()
    with pytest.raises(InterceptError, match=r"no daemon answers.*on_failure: closed") as error:
        alone.up(Intercept(), SERVICES, METHODS)
    assert error.value.slug == "no-daemon"
    assert everything() == before


def test_closed_refuses_at_once_until_somebody_serves() -> None:
    before = everything()
    alone.up(_CLOSED, SERVICES, METHODS)
    once = nft("list ruleset")
    alone.up(_CLOSED, SERVICES, METHODS)
    assert nft("list ruleset") == once
    assert alone.report(_CLOSED, SERVICES, METHODS).state == "refusing"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((SERVICES[0].host, 80), 5)
    with socket.create_server(("169.254.100.200", 200)), socket.create_connection((SERVICES[0].host, 80), 5):
        pass
    assert alone.down(_CLOSED, SERVICES, METHODS)
    assert not alone.down(_CLOSED, SERVICES, METHODS)
    assert everything() == before
    assert alone.report(_CLOSED, SERVICES, METHODS).state == "off"


def test_what_a_process_holds_is_not_taken_down_and_told() -> None:
    redirect = NftablesRedirect(PLAN)
    redirect.up()
    with pytest.raises(InterceptError, match=r"table inet imds_proxy_\w+ is held by a running process"):
        alone.down(Intercept(), SERVICES, METHODS)
    report = alone.report(Intercept(), SERVICES, METHODS)
    assert (report.state, report.held_by, report.daemon) == ("in-force", "owner-table", False)
    redirect.down()


def test_a_lease_that_a_dead_daemon_left_is_told_and_taken_down() -> None:
    before = everything()
    redirect = NftablesRedirect(replace(PLAN, owner_table=False))
    redirect.up()
    nft("flush set inet imds_proxy switch4; flush set inet imds_proxy switch6")
    assert alone.report(Intercept(), SERVICES, METHODS).state == "lapsed"
    assert alone.down(Intercept(), SERVICES, METHODS)
    assert everything() == before
    redirect.release()


def test_a_failure_leaves_no_address_behind() -> None:
    before = everything()

    def broken(_: object) -> NftablesRedirect:
        raise InterceptError("slug", "it is broken")

    with pytest.raises(InterceptError, match="it is broken"):
        alone.up(_CLOSED, SERVICES, {"nftables": broken, "ebpf": METHODS["ebpf"]})
    assert everything() == before
