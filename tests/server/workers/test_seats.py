"""Connections that workers keep, in the register of all."""

from __future__ import annotations

from typing import Any

from imds_proxy.server.connections import ConnectionRegister
from imds_proxy.server.workers.seats import Seats


class Room:
    def __init__(self, total: int, per_caller: int) -> None:
        self.register: ConnectionRegister[Any] = ConnectionRegister(total, per_caller)
        self.evicted: list[int] = []
        self.seats = Seats(lambda: self.register, self.evicted.append)


def test_a_caller_has_so_many_and_the_one_used_longest_ago_makes_room() -> None:
    room = Room(100, 2)
    room.seats.take(1, "a", "end 1")
    room.seats.take(2, "a", "end 2")
    room.seats.touch((1, 77))
    room.seats.take(3, "a", "end 3")
    assert room.evicted == [2]
    assert [seat.ends[0] for seat in room.register] == ["end 1", "end 3"]


def test_all_callers_together_have_so_many() -> None:
    room = Room(2, 2)
    for number in range(4):
        room.seats.take(number, number, None)
    assert room.evicted == [0, 1]
    assert len(room.register) == 2


class Busy:
    idle = False

    def evict(self) -> None: ...


def test_one_that_finds_no_room_is_closed() -> None:
    room = Room(1, 1)
    room.register.admit(Busy())
    room.seats.take(1, "a", None)
    assert room.evicted == [1]
    room = Room(2, 1)
    room.register.admit(busy := Busy())
    room.register.assign(busy, "a")
    room.seats.take(1, "a", None)
    assert room.evicted == [1]
    assert len(room.register) == 1


def test_what_is_closed_or_whose_worker_is_gone_counts_no_more() -> None:
    room = Room(10, 10)
    for number in range(4):
        room.seats.take(number, "a", None)
    room.seats.free((1, 1, 50))
    assert len(room.register) == 3
    room.seats.free_all()
    assert len(room.register) == 0
    assert room.evicted == []


def test_the_drain_passes_over_them_since_they_are_recalled_before() -> None:
    room = Room(10, 10)
    room.seats.take(1, "a", None)
    (seat,) = room.register
    seat.drain(), seat.close_if_idle(), seat.check_times(1e9)
    assert len(room.register) == 1
