"""The programs that lead connects away, as text; what they do in the kernel stands in test_ebpf.py."""

from __future__ import annotations

import struct

import pytest

from imds_proxy.bpf.assembler import assemble
from imds_proxy.intercept.rewriting import Maps, Scope, Way, lead_away, show_the_service

V4 = Way(bytes((100, 100, 100, 200)), 80, bytes((169, 254, 100, 200)), 8100)
V6 = Way(bytes(15) + b"\1", 80, bytes(15) + b"\2", 8100)
MAPS = Maps(3, 4, 5, 6)


def immediates(code: bytes) -> list[int]:
    return [struct.unpack_from("=I", code, at + 4)[0] for at in range(0, len(code), 8)]


def test_a_way_leads_between_addresses_of_one_family() -> None:
    with pytest.raises(ValueError, match="one family"):
        Way(bytes(4), 80, bytes(16), 80)


def test_a_way_back_is_its_mirror() -> None:
    assert V4.back() == Way(bytes((169, 254, 100, 200)), 8100, bytes((100, 100, 100, 200)), 80)
    assert V4.back().back() == V4


def test_a_socket_of_ipv4_knows_no_way_of_ipv6() -> None:
    scope = Scope(1)
    four = assemble(lead_away([V4], scope, MAPS, (80,), six=False))
    assert assemble(lead_away([V4, V6], scope, MAPS, (80,), six=False)) == four
    assert len(assemble(lead_away([V4, V6], scope, MAPS, (80,), six=True))) > len(four)


def test_each_exemption_is_asked_for_only_where_it_is_given() -> None:
    mark, uid = 0x1234567, 0x7654321
    for scope in (Scope(1), Scope(1, mark), Scope(1, None, uid), Scope(1, mark, uid)):
        code = immediates(assemble(lead_away([V4], scope, MAPS, (80,), six=False)))
        assert (mark in code, uid in code) == (scope.mark is not None, scope.uid is not None)


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_programs_are_whole(six: bool, closed: bool) -> None:
    scope = Scope(2**63 + 1, 1, 2, closed)
    for text in (
        lead_away([V4, V6], scope, MAPS, (), six),
        show_the_service([V4, V6], scope, MAPS, six),
    ):
        assert assemble(text)[-8] == 0x95
