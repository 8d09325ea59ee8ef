"""The register of connections: limits in all and for each caller."""

from __future__ import annotations

from imds_proxy.server.connections import ConnectionRegister


class Connection:
    def __init__(self, register: ConnectionRegister[Connection], idle: bool = True) -> None:
        self.idle, self.evicted, self._register = idle, False, register

    def evict(self) -> None:
        self.evicted = True
        self._register.gone(self)


def opened(register: ConnectionRegister[Connection], caller: str, idle: bool = True) -> Connection:
    connection = Connection(register, idle)
    assert register.admit(connection)
    assert register.assign(connection, caller)
    return connection


def test_the_oldest_idle_connection_makes_room() -> None:
    register = ConnectionRegister[Connection](total=3, per_caller=3)
    busy, oldest, younger = opened(register, "a", idle=False), opened(register, "b"), opened(register, "c")
    opened(register, "d")
    assert (busy.evicted, oldest.evicted, younger.evicted) == (False, True, False)
    assert len(register) == 3


def test_one_that_was_used_is_no_longer_the_oldest() -> None:
    register = ConnectionRegister[Connection](total=2, per_caller=2)
    used, unused = opened(register, "a"), opened(register, "a")
    register.touch(used)
    opened(register, "b")
    assert (used.evicted, unused.evicted) == (False, True)


def test_a_caller_at_its_limit_loses_its_own_oldest_not_anothers() -> None:
    register = ConnectionRegister[Connection](total=10, per_caller=2)
    other = opened(register, "other")
    mine = [opened(register, "greedy") for _ in range(5)]
    assert not other.evicted
    assert [one.evicted for one in mine] == [True, True, True, False, False]


def test_with_nothing_idle_a_new_one_is_refused() -> None:
    register = ConnectionRegister[Connection](total=1, per_caller=1)
    opened(register, "a", idle=False)
    assert not register.admit(Connection(register))


def test_a_closed_connection_is_forgotten_and_closing_twice_does_no_harm() -> None:
    register = ConnectionRegister[Connection](total=1, per_caller=1)
    one = opened(register, "a")
    register.gone(one)
    register.gone(one)
    register.touch(one)
    assert len(register) == 0
    opened(register, "a")
