from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

import pytest

from imds_proxy.intercept.addresses import Holder, drop, hold, holder
from imds_proxy.intercept.redirect import InterceptError
from netns import everything, ip

pytestmark = pytest.mark.usefixtures("network")
_BOTH = pytest.mark.parametrize("host", ["169.254.100.200", "fd64:64c8::200"])


@_BOTH
@pytest.mark.parametrize("seconds", [None, 60])
def test_an_address_is_held_and_dropped_without_a_trace(host: str, seconds: int | None) -> None:
    before = everything()
    hold(host, seconds)
    hold(host, seconds)
    assert holder(host) == Holder("lo", ours=True)
    assert ("valid_lft forever" in ip(f"addr show to {host}")) == (seconds is None)
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
        pass
    assert drop(host)
    assert not drop(host)
    assert everything() == before


@_BOTH
def test_an_address_that_is_not_renewed_goes_by_itself(host: str) -> None:
    before = everything()
    hold(host, 1)
    until = time.monotonic() + 10
    while holder(host) is not None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert everything() == before


@_BOTH
def test_a_held_address_can_be_made_to_stay(host: str) -> None:
    hold(host, 60)
    hold(host, None)
    assert "valid_lft forever" in ip(f"addr show to {host}")
    assert holder(host) == Holder("lo", ours=True)


@_BOTH
def test_what_an_operator_gave_to_lo_is_used_and_left_alone(host: str) -> None:
    ip(f"addr add {host}/{128 if ':' in host else 32} dev lo")
    before = everything()
    assert holder(host) == Holder("lo", ours=False)
    hold(host, 60)
    assert not drop(host)
    assert everything() == before


@_BOTH
def test_an_address_of_another_interface_is_refused_by_name(host: str) -> None:
    ip("link add name there type bridge")
    ip(f"addr add {host}/{64 if ':' in host else 24} dev there")
    with pytest.raises(InterceptError, match=f"{host} is already an address of there; set intercept.address"):
        hold(host, None)


def test_a_host_source_is_never_chosen_for_what_leaves_the_machine() -> None:
    hold("169.254.100.200", None)
    assert "scope host" in ip("addr show to 169.254.100.200")


def test_without_ipv6_the_kernel_says_so() -> None:
    switch = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    switch.write_text("1")
    with pytest.raises(OSError) as error:
        hold("fd64:64c8::200", None)
    assert error.value.errno in (errno.EACCES, errno.EOPNOTSUPP)
