"""The directory stays true: listed, watched, listed again when the server forgets, kept when it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from imds_proxy.kubernetes.client import ApiServer
from imds_proxy.kubernetes.directory import PodDirectory
from imds_proxy.kubernetes.watch import PodWatch
from kube_api import KubeApi, pod_object


class Log:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def event(self, name: str, message: str, **facts: Any) -> None:
        self.said.append((name, str(facts.get("detail", ""))))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.said]


@contextmanager
def watching(api: KubeApi, log: Log) -> Iterator[PodDirectory]:
    directory = PodDirectory()
    server = ApiServer(api.host, api.port, api.credentials)
    watch = PodWatch(server, "node-1", directory, log, lambda: 1.0, pause=0.02)
    loop = asyncio.new_event_loop()
    task = loop.create_task(watch.run())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(asyncio.sleep(0.02))  # transports close at the loop's next turns
            loop.close()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield directory
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        assert not thread.is_alive()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def log() -> Log:
    return Log()


def lists(api: KubeApi) -> int:
    return sum("watch=true" not in target for target in api.targets)


def test_pods_are_listed_once_then_followed(api: KubeApi, log: Log) -> None:
    api.put(pod_object("first", "u1"))
    with watching(api, log) as directory:
        until(lambda: directory.of("u1"))
        until(lambda: api.watches)
        api.put(pod_object("second", "u2"))
        until(lambda: directory.of("u2"))
        api.put(pod_object("second", "u2", labels={"a": "b"}))
        until(lambda: (pod := directory.of("u2")) and pod.labels)
        api.delete("u1")
        until(lambda: directory.of("u1") is None)
    assert lists(api) == 1
    assert all("fieldSelector=spec.nodeName%3Dnode-1" in target for target in api.targets)
    assert log.said == []


def test_a_list_comes_in_pages(api: KubeApi, log: Log) -> None:
    api.page = 3
    for number in range(10):
        api.put(pod_object(f"p{number}", f"u{number}"))
    with watching(api, log) as directory:
        until(lambda: len(directory) == 10)
    assert lists(api) == 4


def test_a_watch_that_ended_goes_on_where_it_was(api: KubeApi, log: Log) -> None:
    with watching(api, log) as directory:
        until(lambda: api.watches)
        api.put(pod_object("a", "u1"))
        until(lambda: directory.of("u1"))
        api.end_watches()
        api.put(pod_object("b", "u2"))
        until(lambda: directory.of("u2"))
    assert lists(api) == 1


def test_a_version_that_is_too_old_means_a_new_list(api: KubeApi, log: Log) -> None:
    api.put(pod_object("a", "u1"))
    api.put(pod_object("b", "u2"))
    with watching(api, log) as directory:
        until(lambda: api.watches)
        api.delete("u1")
        until(lambda: len(directory) == 1)
        api.put(pod_object("c", "u3"))
        api.forget_history()
        until(lambda: lists(api) == 2 and api.watches)
        assert directory.of("u3") is not None
        assert len(directory) == 2
    assert log.said == []


def test_bookmarks_carry_the_version_on(api: KubeApi, log: Log) -> None:
    with watching(api, log):
        until(lambda: api.watches)
        api.bookmark()
        api.end_watches()
        until(lambda: len(api.targets) >= 3)
    versions = [target.rpartition("resourceVersion=")[2] for target in api.targets[1:]]
    assert versions[:2] in (["100", "101"], ["100", "100"])


@pytest.mark.parametrize("fault", [(403, b"{}"), (500, b""), (200, b"<html>"), (200, b'{"kind":"Status"}')])
def test_while_it_cannot_be_asked_what_was_known_stays_and_it_is_said_once(
    api: KubeApi, log: Log, fault: tuple[int, bytes]
) -> None:
    api.put(pod_object("a", "u1"))
    with watching(api, log) as directory:
        until(lambda: api.watches)
        api.fault = fault
        api.forget_history()
        asked = len(api.targets)
        until(lambda: len(api.targets) >= asked + 4)
        assert directory.of("u1") is not None
        assert log.names == ["pods-unknown"]
        api.fault = None
        until(lambda: log.names == ["pods-unknown", "pods-known"])


def test_an_event_that_never_ends_is_cut_off(api: KubeApi, log: Log) -> None:
    api.raw_events = [b"x" * (1 << 20)] * 5
    with watching(api, log):
        until(lambda: log.said)
    assert log.said[0] == ("pods-unknown", "an event is too large")


def test_pauses_grow_while_it_fails(api: KubeApi, log: Log) -> None:
    api.fault = (500, b"")
    with watching(api, log):
        begun = time.monotonic()
        until(lambda: len(api.targets) == 5)
    assert time.monotonic() - begun >= 0.04 + 0.08 + 0.16 + 0.32
