"""The assembler's bytes."""

from __future__ import annotations

import pytest

from imds_proxy.bpf.assembler import (
    Helper,
    Label,
    Register,
    Width,
    add,
    assemble,
    call,
    copy,
    cut,
    jump,
    jump_if,
    jump_if_above,
    jump_if_word,
    jump_unless,
    jump_unless_equal,
    jump_unless_word,
    leave,
    load,
    load_map,
    put,
    put_long,
    store,
    store_value,
)

R0, R1, R2, R10 = Register.R0, Register.R1, Register.R2, Register.R10


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
        (put_long(R2, 0x1122334455667788), "18020000887766550000000044332211"),
        (put_long(R2, 0xFFFFFFFFFFFFFFFE), "18020000feffffff00000000ffffffff"),
        (cut(R2), "bc22000000000000"),
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


def test_a_word_is_compared_without_a_sign() -> None:
    code = assemble([jump_if_word(R1, 0xC8646464, "end"), jump_unless_word(R1, 1, "end"), Label("end")])
    assert code.hex() == "16010100646464c8" + "5601000001000000"


def test_registers_are_compared_with_each_other() -> None:
    code = assemble([jump_unless_equal(R1, R2, "end"), jump_if_above(R1, R2, "end"), Label("end")])
    assert code.hex() == "5d21010000000000" + "2d21000000000000"


def test_a_label_that_is_nowhere_is_an_error() -> None:
    with pytest.raises(KeyError):
        assemble([jump("nowhere")])
