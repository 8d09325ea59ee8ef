"""Callers as values: which identities are one, and which are resolved."""

from __future__ import annotations

import dataclasses

import pytest

from imds_proxy.policy.caller import Caller, Identity, Process


@pytest.mark.parametrize(
    ("identity", "resolved"),
    [
        (Identity(0), True),
        (Identity(1000, unit="a.service"), True),
        (Identity(1000, container="c1"), True),
        (Identity(None, origin="127.0.0.1"), False),
        (Identity(None), False),
        (Identity(1000, origin="the process was not found"), False),
    ],
)
def test_only_what_the_kernel_named_in_full_is_resolved(identity: Identity, resolved: bool) -> None:
    assert identity.resolved is resolved


def test_each_part_of_an_identity_tells_callers_apart() -> None:
    identities = {
        Identity(0),
        Identity(1),
        Identity(0, unit="a"),
        Identity(0, container="a"),
        Identity(0, origin="a"),
        Identity(None, origin="a"),
        Identity(None, origin="b"),
    }
    assert len(identities) == 7
    assert Identity(0, unit="a") == Identity(0, unit="a")


def test_values_do_not_change() -> None:
    caller = Caller(Identity(0), process=Process(1))
    for value, name in ((caller, "user"), (caller.identity, "uid"), (caller.process, "exe")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, "x")
