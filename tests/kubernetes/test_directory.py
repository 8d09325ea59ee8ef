"""What is known of pods, and when those who asked are told that it changed."""

from __future__ import annotations

import socket

import pytest

from imds_proxy.kubernetes.directory import PodDirectory
from imds_proxy.kubernetes.objects import PodEvent, PodRecord, read_pod
from kube_api import pod_object


def record(name: str, uid: str, ip: str | None = None, **more: object) -> PodRecord:
    found = read_pod(pod_object(name, uid, ip, **more))
    assert found is not None
    return found


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def directory(told: list[str]) -> PodDirectory:
    made = PodDirectory()
    made.on_change(lambda: told.append("changed"))
    return made


def added(one: PodRecord) -> PodEvent:
    return PodEvent("ADDED", "1", one)


def test_a_pod_is_found_by_its_uid_until_it_is_deleted(directory: PodDirectory) -> None:
    web = record("web", "u1", containers={"c1": ("app", "image")})
    directory.take(added(web))
    assert directory.of("u1") == web.pod
    assert directory.container("u1", "c1") == ("app", "image")
    assert directory.container("u1", "c2") is directory.container("u2", "c1") is None
    directory.take(PodEvent("DELETED", "2", web))
    assert directory.of("u1") is None
    assert len(directory) == 0


def test_a_pod_can_call_from_its_addresses_alone_as_far_as_they_are_known(directory: PodDirectory) -> None:
    nine, ten = socket.inet_aton("10.0.0.9"), socket.inet_aton("10.0.0.10")
    directory.take(added(record("web", "u1", "10.0.0.9")))
    directory.take(added(record("new", "u2")))
    assert directory.may_have("u1", nine)
    assert not directory.may_have("u1", ten)
    assert directory.may_have("u2", ten)
    assert directory.may_have("u3", ten)


def test_a_list_replaces_all(directory: PodDirectory) -> None:
    directory.take(added(record("old", "u1")))
    directory.replace([record("new", "u2")])
    assert directory.of("u1") is None
    assert directory.of("u2") is not None


def test_those_who_asked_are_told_of_what_changed_and_of_nothing_else(
    directory: PodDirectory, told: list[str]
) -> None:
    assert directory.of("u1") is None
    directory.take(added(record("other", "u2")))
    assert told == []
    directory.take(added(record("web", "u1")))
    assert told == ["changed"]
    directory.take(added(record("web", "u1")))
    directory.replace([record("web", "u1"), record("another", "u3")])
    assert told == ["changed"]
    directory.take(PodEvent("MODIFIED", "3", record("web", "u1", labels={"app": "web"})))
    assert told == ["changed"] * 2
    directory.replace([])
    assert told == ["changed"] * 3


def test_it_is_bounded(directory: PodDirectory) -> None:
    directory.replace(record(f"p{n}", f"u{n}") for n in range(4100))
    assert (len(directory), directory.dropped) == (4096, 4)
    directory.take(added(record("more", "more")))
    assert (len(directory), directory.dropped) == (4096, 5)
    directory.take(PodEvent("MODIFIED", "3", record("p0", "u0", labels={"a": "b"})))
    found = directory.of("u0")
    assert found is not None
    assert found.labels["a"] == "b"
