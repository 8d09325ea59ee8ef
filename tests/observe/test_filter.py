"""The filter, run by the kernel itself on packets that are sent through a socket pair."""

from __future__ import annotations

import ctypes
import socket

import pytest

from imds_proxy.observe.filter import packet_filter
from packets import CLIENT, CLIENT6, SERVICE, SERVICE6, packet


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


@pytest.fixture(scope="module")
def passes() -> object:
    """Whether the kernel lets a packet pass."""
    code = packet_filter([SERVICE, SERVICE6], 80)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = Program(len(code) // 8, ctypes.addressof(buffer))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.setsockopt(socket.SOL_SOCKET, 26, bytes(head))
    right.setblocking(False)

    def ask(raw: bytes) -> bool:
        left.send(raw)
        try:
            return right.recv(70000) == raw
        except BlockingIOError:
            return False

    yield ask
    left.close()
    right.close()


@pytest.mark.parametrize(
    "raw",
    [
        packet((CLIENT, 40000), (SERVICE, 80), b"x"),
        packet((SERVICE, 80), (CLIENT, 40000), b"x" * 5000),
        packet((CLIENT6, 40000), (SERVICE6, 80)),
        packet((SERVICE6, 80), (CLIENT6, 40000), b"x"),
        packet((SERVICE, 80), (SERVICE, 40000)),
    ],
)
def test_what_goes_to_the_service_and_comes_from_it_passes(passes: object, raw: bytes) -> None:
    assert passes(raw)  # type: ignore[operator]


@pytest.mark.parametrize(
    "raw",
    [
        packet((CLIENT, 40000), (SERVICE, 81)),
        packet((CLIENT, 80), (SERVICE, 40000)),
        packet((CLIENT, 40000), ("100.100.100.201", 80)),
        packet((CLIENT6, 40000), ("fd00:100::100:201", 80)),
        packet((CLIENT, 40000), (SERVICE, 80), protocol=17),
        packet((CLIENT, 40000), (SERVICE, 80), fragment=100),
        b"\x45",
        b"",
    ],
)
def test_nothing_else_does(passes: object, raw: bytes) -> None:
    assert not passes(raw)  # type: ignore[operator]
