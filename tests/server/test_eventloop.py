from __future__ import annotations

import asyncio
import io
import sys

import pytest

from imds_proxy.server.eventloop import run_loop
from imds_proxy.server.log import Log


async def kind_of_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_the_daemon_runs_on_uvloop_and_nothing_is_to_be_said() -> None:
    said = io.StringIO()
    log = Log("json", said)
    assert run_loop(kind_of_loop(), log) == "uvloop"
    log.close()
    assert said.getvalue() == ""


def test_without_it_asyncio_runs_the_daemon_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    log = Log("json", said)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_loop(kind_of_loop(), log) == "asyncio"
    log.close()
    assert said.getvalue().count("no-uvloop") == 1


def test_a_process_that_says_nothing_has_the_same_loop_or_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_loop(kind_of_loop()) == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_loop(kind_of_loop()) == "asyncio"
