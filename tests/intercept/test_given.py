from __future__ import annotations

import os
from dataclasses import replace

import pytest

from imds_proxy.intercept.addresses import drop_all, hold_all
from imds_proxy.intercept.given import GivenRedirect
from imds_proxy.intercept.methods import put_up
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.redirect import InterceptError, Plan
from plans import LISTENERS, PLAN

pytestmark = pytest.mark.usefixtures("network")
_CLOSED = replace(PLAN, closed=True, exempt_uid=os.geteuid())


def test_what_stands_is_taken_as_it_is_and_left() -> None:
    hold_all(LISTENERS, None)
    redirect = GivenRedirect(_CLOSED)
    assert not redirect.status().in_force
    redirect.up()
    status = redirect.status()
    assert (status.in_force, status.held_by) == (True, "table")
    assert "put up by another process" in status.notes[0]
    assert redirect.renew() is None
    assert redirect.descriptors() == {}
    with pytest.raises(InterceptError, match="may not take the redirect down"):
        redirect.down()
    redirect.release()
    redirect.down()


def test_where_nothing_stands_it_says_what_to_do() -> None:
    with pytest.raises(InterceptError, match=r"no redirect stands here.*an init container"):
        GivenRedirect(_CLOSED).up()


def test_that_it_is_gone_is_noticed() -> None:
    hold_all(LISTENERS, None)
    redirect = GivenRedirect(_CLOSED)
    redirect.up()
    drop_all(LISTENERS)
    with pytest.raises(InterceptError, match="is gone"):
        redirect.renew()


class Forbidden(NftablesRedirect):
    """As for a process without CAP_NET_ADMIN."""

    def up(self) -> None:
        raise InterceptError("no-capability", "it may not")


@pytest.mark.parametrize(
    "plan",
    [replace(_CLOSED, closed=False), replace(_CLOSED, exempt_uid=None), replace(_CLOSED, exempt_uid=7)],
)
def test_only_one_that_is_closed_and_exempts_this_user_is_taken(plan: Plan) -> None:
    hold_all(LISTENERS, None)
    with pytest.raises(InterceptError, match="it may not"):
        put_up({"nftables": Forbidden}, "nftables", plan)
    redirect, _ = put_up({"nftables": Forbidden}, "nftables", _CLOSED)
    assert isinstance(redirect, GivenRedirect)
