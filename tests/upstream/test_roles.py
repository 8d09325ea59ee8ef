"""Roles that are gone, and when the list of roles is looked into."""

from __future__ import annotations

import pytest

from imds_proxy.policy.freshness import Lifetime
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer, plain
from imds_proxy.protocol.target import canonical_target
from imds_proxy.upstream.roles import RoleWatch
from imds_proxy.upstream.store import AnswerStore, Stored

LIST = canonical_target(b"/latest/meta-data/ram/security-credentials/")
ROLE = canonical_target(b"/latest/meta-data/ram/security-credentials/app")
OLD_CASE = canonical_target(b"/2016-01-01/meta-data/Ram/security-credentials/App")
SET, MISSING = plain(200, b"{}"), plain(404, b"Not Found")


def watch(*answers: Answer) -> tuple[RoleWatch, AnswerStore]:
    store = AnswerStore(64, 1_000_000)
    for target, answer in zip((ROLE, OLD_CASE), answers, strict=False):
        stored = Stored(target, ItemClass.CREDENTIALS, answer, Lifetime(9e9, 9e9), 0.0, "a", True)
        store.put(target.key, stored)
    return RoleWatch(store), store


def use(store: AnswerStore, now: float) -> None:
    for _, stored in store.items():
        stored.used_at = now


@pytest.mark.parametrize("body", [b"app", b"app\n", b"other\r\nAPP"])
def test_a_role_in_the_list_is_there_whatever_the_case_and_line_ends(body: bytes) -> None:
    roles, store = watch(SET, SET)
    roles.note(LIST, ItemClass.LISTING, plain(200, body), 1.0)
    assert (len(store), roles.removals) == (2, 0)


@pytest.mark.parametrize("answer", [MISSING, plain(200, b""), plain(200, b"app2")])
def test_a_role_that_is_not_in_the_list_is_gone_by_every_name(answer: Answer) -> None:
    roles, store = watch(SET, SET)
    roles.note(LIST, ItemClass.LISTING, answer, 1.0)
    assert len(store) == 0
    assert roles.removals > 0


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_list_that_cannot_be_read_says_nothing(status: int) -> None:
    roles, store = watch(SET, SET)
    roles.note(LIST, ItemClass.LISTING, plain(status, b""), 1.0)
    assert len(store) == 2


def test_the_list_above_credentials_in_use_is_due_once_a_minute() -> None:
    roles, store = watch(SET)
    due = []
    for second in range(1, 400):
        use(store, float(second))
        due += [(second, target.text) for target in roles.due(float(second))]
    assert [second for second, _ in due] == [60, 120, 180, 240, 300, 360]
    assert {text for _, text in due} == {LIST.text}


def test_a_list_that_callers_read_is_not_read_for_them() -> None:
    roles, store = watch(SET)
    for second in range(1, 400):
        use(store, float(second))
        assert roles.due(float(second)) == []
        if second % 30 == 0:
            roles.note(LIST, ItemClass.LISTING, plain(200, b"app"), float(second))


def test_after_a_pause_the_first_use_is_looked_after_at_once() -> None:
    roles, store = watch(SET)
    use(store, 10.0)
    assert roles.due(1000.0) == []
    use(store, 5000.0)
    assert roles.due(5000.5) == [LIST]


def test_a_role_that_is_missing_is_not_in_use() -> None:
    roles, store = watch(MISSING)
    use(store, 100.0)
    assert roles.due(100.0) == []
