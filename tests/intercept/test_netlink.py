from __future__ import annotations

import errno
import socket
import struct

import pytest

from imds_proxy.intercept.netlink import ACK, DUMP, REQUEST, answers, netlink

NEW_LINK, GET_LINK, DELETE_ADDRESS = 16, 18, 21  # linux/rtnetlink.h
LINK = struct.Struct("=BxHiII")  # ifinfomsg
ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg
ANY = bytes(LINK.size)


def test_a_dump_is_all_of_its_messages_and_ends() -> None:
    with netlink(socket.NETLINK_ROUTE) as wire:
        found = list(answers(wire, GET_LINK, REQUEST | DUMP, ANY))
    assert {kind for kind, _ in found} == {NEW_LINK}
    assert socket.if_nametoindex("lo") in {LINK.unpack_from(body)[2] for _, body in found}


def test_what_the_kernel_refuses_is_an_error_with_its_number() -> None:
    nowhere = ADDRESS.pack(socket.AF_INET, 32, 0, 0, 2**31 - 1)
    with netlink(socket.NETLINK_ROUTE) as wire, pytest.raises(OSError) as refused:
        list(answers(wire, DELETE_ADDRESS, REQUEST | ACK, nowhere))
    assert refused.value.errno in (errno.EPERM, errno.ENODEV, errno.EADDRNOTAVAIL)


def test_an_acknowledgement_ends_an_answer_and_the_socket_is_good_for_another_question() -> None:
    loopback = LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex("lo"), 0, 0)
    with netlink(socket.NETLINK_ROUTE) as wire:
        for _ in range(2):
            assert [kind for kind, _ in answers(wire, GET_LINK, REQUEST | ACK, loopback)] == [NEW_LINK]
