"""Numbers that every process of a daemon sees at once."""

from __future__ import annotations

import os

from imds_proxy.server.workers.board import Board, failure_slot


def test_an_answer_has_a_stamp_until_it_ends_and_never_again() -> None:
    board = Board()
    slot, stamp = board.pin() or (0, 0)
    assert slot > 0
    assert board.stamps[slot] == stamp
    board.unpin(slot)
    assert board.stamps[slot] != stamp
    again = board.pin()
    assert again is not None
    assert again[0] == slot
    assert again[1] != stamp


def test_each_generation_is_another() -> None:
    board = Board()
    before = board.generation
    board.renew()
    assert board.generation == board.stamps[0] != before


def test_there_is_room_for_some_thousand_answers_and_then_none_is_taken() -> None:
    board = Board()
    taken = [board.pin() for _ in range(10_000)]
    slots = [one[0] for one in taken if one is not None]
    assert len(slots) == len(set(slots)) == 8191
    board.unpin(slots[0])
    assert board.pin() is not None


def test_what_one_process_writes_the_others_see_without_being_told() -> None:
    board = Board()
    ends, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.read(ends[0], 1)
        seen = board.generation == 2 and board.failures[failure_slot(("a", 1))] == 7.5
        board.beats[3] = 1.25
        os.write(done[1], b"y" if seen else b"n")
        os._exit(0)
    board.renew()
    board.failed(("a", 1), 7.5)
    os.write(ends[1], b".")
    assert os.read(done[0], 1) == b"y"
    assert board.beats[3] == 1.25
    os.waitpid(child, 0)
    for number in (*ends, *done):
        os.close(number)
