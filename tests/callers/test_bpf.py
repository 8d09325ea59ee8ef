"""The assembler's bytes, and what the kernel says of wrong programs."""

from __future__ import annotations

import os

import pytest

from imds_proxy.callers.bpf import (
    Bpf,
    Helper,
    Label,
    MapReader,
    Register,
    Width,
    add,
    assemble,
    call,
    copy,
    jump,
    jump_if,
    jump_unless,
    leave,
    load,
    load_map,
    put,
    store,
    store_value,
)

R0, R1, R2, R10 = Register.R0, Register.R1, Register.R2, Register.R10
SOCK_ADDR, CONNECT4 = 18, 10
needs_bpf = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (put(R0, 1), "b700000001000000"),
        (copy(R2, R10), "bfa2000000000000"),
        (add(R2, -8), "07020000f8ffffff"),
        (load(Width.W, R2, R1, 24), "6112180000000000"),
        (store(Width.DW, R10, -8, R0), "7b0af8ff00000000"),
        (store_value(Width.W, R10, -4, -1), "620afcffffffffff"),
        (call(Helper.PID_TGID), "850000000e000000"),
        (leave(), "9500000000000000"),
        (load_map(R1, 5), "18110000050000000000000000000000"),
    ],
)
def test_an_instruction_is_eight_bytes_and_a_wide_one_sixteen(instruction: object, expected: str) -> None:
    assert assemble([instruction]).hex() == expected  # type: ignore[list-item]


def test_jumps_reach_their_labels_over_wide_instructions() -> None:
    code = assemble(
        [
            jump_if(R1, 7, "end"),
            jump_unless(R1, 8, "end"),
            load_map(R1, 0),
            jump("end"),
            put(R0, 0),
            Label("end"),
        ]
    )
    offsets = [int.from_bytes(code[at + 2 : at + 4], "little", signed=True) for at in (0, 8, 32)]
    assert offsets == [5, 4, 1]
    with pytest.raises(KeyError):
        assemble([jump("nowhere")])


@pytest.mark.root
@needs_bpf
def test_a_program_that_the_verifier_refuses_says_why() -> None:
    with pytest.raises(OSError, match=r"program: .*R0 !read_ok"):
        Bpf().program(SOCK_ADDR, CONNECT4, assemble([leave()]))


@pytest.mark.root
@needs_bpf
def test_a_key_that_is_in_no_map_is_not_found() -> None:
    bpf = Bpf()
    descriptor = bpf.lru_map(8, 8, 16)
    try:
        assert MapReader(bpf, descriptor, 8, 8).get(bytes(8)) is None
    finally:
        os.close(descriptor)


def test_an_unknown_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(OSError, match="vax"):
        Bpf()
