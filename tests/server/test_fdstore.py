from __future__ import annotations

import os

from imds_proxy.server.fdstore import DescriptorStore
from imds_proxy.server.notify import Notifier
from manager import Manager


def test_what_one_run_keeps_the_next_one_finds_by_its_name(manager: Manager, notifier: Notifier) -> None:
    first = DescriptorStore(notifier, [])
    read, write = os.pipe()
    first.keep("redirect-1", [write])
    os.close(write)
    manager.heard()
    passed = [(name, os.dup(one)) for name, held in manager.held.items() for one in held]

    second = DescriptorStore(notifier, passed)
    assert second.activated == []
    assert second.left("redirect-") == ["redirect-1"]
    (taken,) = second.take("redirect-1")
    os.write(taken, b"x")
    assert os.read(read, 1) == b"x"
    assert second.left("redirect-") == []
    assert second.take("redirect-1") == []

    second.drop("redirect-1")
    os.close(taken)
    manager.heard()
    assert os.read(read, 1) == b""
    os.close(read)


def test_what_is_dropped_untaken_is_closed_here_too(manager: Manager, notifier: Notifier) -> None:
    read, write = os.pipe()
    store = DescriptorStore(notifier, [("kept-redirect-1", write)])
    store.drop("redirect-1")
    assert os.read(read, 1) == b""
    assert manager.heard() == ["FDSTOREREMOVE=1\nFDNAME=kept-redirect-1"]
    os.close(read)


def test_what_a_socket_unit_gave_is_not_taken_for_what_a_run_left(notifier: Notifier) -> None:
    store = DescriptorStore(
        notifier, [("imds-proxy.socket", 50), ("redirect-1", 51), ("kept-listener-a", 52)]
    )
    assert store.activated == [50, 51]
    assert store.left("") == ["listener-a"]
    assert store.usable


def test_without_systemd_nothing_is_left_and_nothing_kept() -> None:
    store = DescriptorStore(Notifier(None), [])
    store.keep("listener-a", [0])
    store.drop("listener-a")
    assert not store.usable
    assert store.left("") == []
