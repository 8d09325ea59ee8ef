from __future__ import annotations

import asyncio
import io
import sys

import pytest

from imds_proxy.server.eventloop import loop_runner, new_event_loop
from imds_proxy.server.log import Log


async def kind_of_loop() -> int:
    return int(type(asyncio.get_running_loop()).__module__.startswith("uvloop"))


def test_the_daemon_runs_on_uvloop() -> None:
    log = Log("json", io.StringIO())
    assert loop_runner(log)(kind_of_loop()) == 1
    log.close()


def test_without_it_asyncio_runs_the_daemon_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    log = Log("json", said)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_runner(log)(kind_of_loop()) == 0
    log.close()
    assert said.getvalue().count("no-uvloop") == 1


def test_a_process_that_says_nothing_has_the_same_loop_or_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_event_loop()
    assert type(loop).__module__.startswith("uvloop")
    loop.close()
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert type(loop).__module__.startswith("asyncio")
    loop.close()
