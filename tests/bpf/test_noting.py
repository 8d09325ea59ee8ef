"""The programs that note connects, as text; what they do in the kernel stands in callers/test_connects.py."""

from __future__ import annotations

import socket
import struct

import pytest

from imds_proxy.bpf.assembler import assemble
from imds_proxy.bpf.noting import KEY, NOTE, allow, file_the_note, note_shapes, note_the_process


def test_the_maps_hold_the_notes_under_a_cookie_and_under_the_ends() -> None:
    by_cookie, by_ends = note_shapes(64)
    assert (by_cookie.key_size, by_cookie.value_size, by_cookie.entries) == (8, NOTE.size, 64)
    assert (by_ends.key_size, by_ends.value_size, by_ends.entries) == (KEY.size, NOTE.size, 64)


@pytest.mark.parametrize("ports", [(), (80,), (80, 8100)])
def test_the_ports_stand_in_the_program(ports: tuple[int, ...]) -> None:
    code = assemble((*note_the_process(7, ports), *allow()))
    compared = [struct.unpack("=BBhi", code[at : at + 8]) for at in range(0, len(code), 8)]
    assert [one[3] for one in compared if one[0] == 0x15] == [socket.htons(port) for port in ports]


def test_both_programs_are_whole() -> None:
    for code in (assemble((*note_the_process(7, ()), *allow())), assemble(file_the_note(7, 8))):
        assert code[-8] == 0x95
