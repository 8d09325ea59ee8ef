"""A packet is the segment in it, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.observe.segments import read_segment
from packets import ACK, CLIENT, CLIENT6, FIN, RST, SERVICE, SERVICE6, SYN, packet


@pytest.mark.parametrize(("client", "service"), [(CLIENT, SERVICE), (CLIENT6, SERVICE6)])
def test_ends_sequence_flags_and_payload_are_read(client: str, service: str) -> None:
    raw = packet((client, 40001), (service, 80), b"GET", sequence=7, flags=ACK | FIN)
    segment = read_segment(raw)
    assert segment is not None
    assert (segment.source[1], segment.target[1]) == (40001, 80)
    assert (segment.sequence, segment.payload) == (7, b"GET")
    assert (segment.fin, segment.syn, segment.reset) == (True, False, False)


@pytest.mark.parametrize("flags", [SYN, RST, SYN | ACK])
def test_flags_are_told_apart(flags: int) -> None:
    segment = read_segment(packet((CLIENT, 1), (SERVICE, 80), flags=flags))
    assert segment is not None
    assert (segment.syn, segment.reset) == (bool(flags & SYN), bool(flags & RST))


def test_padding_of_the_link_is_no_payload() -> None:
    segment = read_segment(packet((CLIENT, 1), (SERVICE, 80), b"ab") + bytes(20))
    assert segment is not None
    assert segment.payload == b"ab"


def test_every_cut_of_a_packet_is_nothing_and_breaks_nothing() -> None:
    for raw in (packet((CLIENT, 1), (SERVICE, 80), b"abc"), packet((CLIENT6, 1), (SERVICE6, 80), b"abc")):
        assert all(read_segment(raw[:length]) is None for length in range(len(raw)))


@given(st.binary(max_size=120))
def test_no_bytes_break_it(raw: bytes) -> None:
    segment = read_segment(raw)
    assert segment is None or len(segment.payload) <= len(raw)


def test_a_repr_tells_no_payload() -> None:
    assert "secret" not in repr(read_segment(packet((CLIENT, 1), (SERVICE, 80), b"secret")))
