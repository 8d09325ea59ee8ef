from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import cast

from imds_proxy.intercept.redirect import Redirect
from imds_proxy.server.fdstore import DescriptorStore
from imds_proxy.server.keeping import RedirectKeeper
from imds_proxy.server.notify import Notifier
from manager import Manager


class Piped:
    """A redirect in force for as long as anybody holds what `descriptors` gives: `in_force` sees it."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    def descriptors(self) -> dict[str, int]:
        return dict.fromkeys(self._names, self._write) if self._write >= 0 else {}

    def die(self) -> None:
        """The process of this run has ended."""
        os.close(self._write)
        self._write = -1

    @property
    def in_force(self) -> bool:
        try:
            return os.read(self._read, 1) != b""
        except BlockingIOError:
            return True


def as_redirect(piped: Piped) -> Redirect:
    return cast(Redirect, piped)


def next_run(manager: Manager, notifier: Notifier) -> RedirectKeeper:
    manager.heard()
    passed = [(name, os.dup(one)) for name, held in manager.held.items() for one in held]
    return RedirectKeeper(DescriptorStore(notifier, passed))


def test_a_redirect_outlives_its_run_until_the_next_one_has_its_own(
    manager: Manager, notifier: Notifier
) -> None:
    first, second = Piped("nftables"), Piped("nftables")
    next_run(manager, notifier).keep(as_redirect(first))
    manager.heard()
    first.die()
    assert first.in_force

    keeper = next_run(manager, notifier)
    assert first.in_force
    keeper.keep(as_redirect(second))
    manager.heard()
    assert not first.in_force
    second.die()
    assert second.in_force
    assert list(manager.held) == ["kept-redirect-nftables"]


def test_a_run_that_redirects_nothing_ends_what_was_left(manager: Manager, notifier: Notifier) -> None:
    first = Piped("nftables")
    next_run(manager, notifier).keep(as_redirect(first))
    manager.heard()
    first.die()
    next_run(manager, notifier).keep(None)
    manager.heard()
    assert manager.held == {}
    assert not first.in_force


def test_what_a_method_takes_is_its_own_and_another_methods_is_not_given_to_it(
    manager: Manager, notifier: Notifier
) -> None:
    first = Piped("ebpf-lease", "ebpf-connect4", "nftables")
    next_run(manager, notifier).keep(as_redirect(first))
    heard = manager.heard()
    assert [("FDPOLL=0" in one) for one in heard] == [True, True, False]
    first.die()
    keeper = next_run(manager, notifier)
    taken = keeper.take("ebpf-")
    assert sorted(taken) == ["ebpf-connect4", "ebpf-lease"]
    assert keeper.take("ebpf-") == {}
    keeper.keep(None)
    manager.heard()
    assert first.in_force  # what was taken is not the keeper's to close
    for number in taken.values():
        os.close(number)
    assert not first.in_force


def test_what_has_not_changed_is_not_said_again(manager: Manager, notifier: Notifier) -> None:
    keeper, redirect = next_run(manager, notifier), Piped("nftables")
    keeper.keep(as_redirect(redirect))
    assert len(manager.heard()) == 1
    keeper.keep(as_redirect(redirect))
    assert manager.heard() == []
    redirect.die()
    keeper.keep(as_redirect(redirect))  # taken down: nothing keeps it any more
    assert [one.split("\n")[0] for one in manager.heard()] == ["FDSTOREREMOVE=1"]


def test_systemd_lets_go_of_the_listeners_before_the_redirect(manager: Manager, notifier: Notifier) -> None:
    store = DescriptorStore(notifier, [])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store.keep("listener-a", [listener.fileno()])
        RedirectKeeper(store).keep(as_redirect(Piped("nftables")))
        manager.heard()
        assert list(manager.held) == ["kept-redirect-nftables", "kept-listener-a"]  # the last is closed first


def test_what_changes_later_is_seen(manager: Manager, notifier: Notifier) -> None:
    keeper, redirect = next_run(manager, notifier), Piped("nftables")

    async def main() -> None:
        watching = asyncio.create_task(keeper.watch(lambda: as_redirect(redirect)))
        while "kept-redirect-nftables" not in manager.held:
            await asyncio.sleep(0.01)
            manager.heard()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    asyncio.run(asyncio.wait_for(main(), 5))


def test_another_redirect_with_the_same_number_is_another_one(manager: Manager, notifier: Notifier) -> None:
    keeper, first, second = next_run(manager, notifier), Piped("nftables"), Piped("nftables")
    keeper.keep(as_redirect(first))
    number = first.descriptors()["nftables"]
    os.dup2(second.descriptors()["nftables"], number)
    keeper.keep(as_redirect(second))
    heard = [one.split("\n")[0] for one in manager.heard()]
    assert heard == ["FDSTORE=1", "FDSTOREREMOVE=1", "FDSTORE=1"]
