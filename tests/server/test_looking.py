from __future__ import annotations

import threading
from functools import partial

import pytest

from imds_proxy.server.looking import LookingThread


def hang(started: threading.Event, forever: threading.Event) -> None:
    started.set()
    forever.wait(60)


def test_jobs_run_in_their_order_and_off_the_caller_s_thread() -> None:
    done: list[tuple[int, int]] = []

    def job(number: int) -> None:
        done.append((number, threading.get_ident()))

    thread = LookingThread(lambda _: None)
    for number in range(5):
        assert thread.put(partial(job, number))
    thread.close(5)
    assert [number for number, _ in done] == list(range(5))
    assert threading.get_ident() not in {ident for _, ident in done}


def test_what_hangs_is_left_behind_and_others_go_on() -> None:
    forever, started = threading.Event(), threading.Event()
    told: list[int] = []

    thread = LookingThread(told.append, patience=0.0)
    try:
        for number in (1, 2, 3):
            started.clear()
            assert thread.put(partial(hang, started, forever))
            assert started.wait(10)
            assert len(told) == number - 1
        assert not thread.put(partial(hang, started, forever))
        assert told == [1, 2, 3]
        assert not thread.put(lambda: None)
        assert told == [1, 2, 3]
    finally:
        forever.set()


def test_a_hanging_look_does_not_hold_up_the_end() -> None:
    forever, started = threading.Event(), threading.Event()
    thread = LookingThread(lambda _: None)
    thread.put(partial(hang, started, forever))
    assert started.wait(10)
    thread.close(timeout=0.05)
    forever.set()


def test_more_than_it_can_hold_is_not_taken() -> None:
    forever, started = threading.Event(), threading.Event()
    thread = LookingThread(lambda _: None)
    thread.put(partial(hang, started, forever))
    assert started.wait(10)
    taken = [thread.put(lambda: None) for _ in range(100)]
    assert taken.count(False) >= 30
    forever.set()
    thread.close(5)


@pytest.mark.parametrize("begun", [False, True])
def test_it_can_be_ended_at_any_time(begun: bool) -> None:
    thread = LookingThread(lambda _: None)
    if begun:
        thread.put(lambda: None)
    thread.close(5)
