"""The addresses that a network namespace has for others to see."""

from __future__ import annotations

import os
import socket

import pytest

from elsewhere import elsewhere
from imds_proxy.callers.interfaces import addresses, open_route


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_addresses_of_both_families_are_there_and_those_of_the_link_are_not() -> None:
    with elsewhere() as place:
        route = place.call(open_route)
        with route:
            assert addresses(route) == frozenset()
            place.sh("ip addr add 10.11.12.13/24 dev lo")
            place.sh("ip addr add fd00::17/64 dev lo nodad")
            place.sh("ip addr add 169.254.9.9/32 dev lo scope link")
            known = {socket.inet_aton("10.11.12.13"), socket.inet_pton(socket.AF_INET6, "fd00::17")}
            assert addresses(route) == known
            place.sh("ip addr del 10.11.12.13/24 dev lo")
            assert len(addresses(route)) == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_thousand_addresses_are_read_whole() -> None:
    with elsewhere() as place:
        words = [f"addr add 10.9.{n >> 8}.{n & 255}/32 dev lo" for n in range(1000)]
        place.call(_batch, "\n".join(words))
        with place.call(open_route) as route:
            assert len(addresses(route)) == 1000


def _batch(lines: str) -> None:
    import subprocess

    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def test_a_closed_socket_is_an_error_and_no_empty_answer() -> None:
    route = open_route()
    route.close()
    with pytest.raises(OSError, match="Bad file"):
        addresses(route)
