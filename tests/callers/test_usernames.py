from __future__ import annotations

import pwd

from imds_proxy.callers.usernames import UserNames


def test_a_uid_has_the_name_of_the_user_database() -> None:
    entry = pwd.getpwall()[0]
    assert UserNames().name(entry.pw_uid) == pwd.getpwuid(entry.pw_uid).pw_name


def test_a_uid_without_a_user_has_no_name() -> None:
    names = UserNames()
    assert names.name(4_000_000_000) is None
    assert names.name(4_000_000_000) is None


def test_more_uids_than_are_remembered_still_get_their_names() -> None:
    names = UserNames()
    for uid in range(3_000_000_000, 3_000_001_100):
        assert names.name(uid) is None
    assert names.name(0) == "root"
