from __future__ import annotations

from dataclasses import replace

import pytest

from imds_proxy.intercept.methods import put_up
from imds_proxy.intercept.redirect import InterceptError, Plan, RedirectStatus
from plans import PLAN


class Recorded:
    """A redirect that goes up, or does not."""

    def __init__(self, plan: Plan, fails: str = "") -> None:
        self.plan, self.fails, self.is_up = plan, fails, False

    def up(self) -> None:
        if self.fails:
            raise InterceptError("slug", self.fails)
        self.is_up = True

    def renew(self) -> str | None:
        return None

    def open_way(self) -> None:
        self.is_up = False

    def down(self) -> None:
        self.is_up = False

    def release(self) -> None:
        self.is_up = False

    def status(self) -> RedirectStatus:
        return RedirectStatus("recorded", self.is_up)

    def descriptors(self) -> dict[str, int]:
        return {}


def broken(plan: Plan) -> Recorded:
    return Recorded(plan, fails="it is broken")


def test_auto_is_the_first_that_works_and_says_what_did_not() -> None:
    redirect, notes = put_up({"nftables": broken, "ebpf": Recorded}, "auto", PLAN)
    assert redirect.status().in_force
    assert notes == ["not by nftables: it is broken"]


def test_the_one_configured_is_the_only_one_tried() -> None:
    with pytest.raises(InterceptError, match="it is broken"):
        put_up({"nftables": broken, "ebpf": Recorded}, "nftables", PLAN)


def test_forwarded_traffic_is_never_left_to_a_method_that_has_none() -> None:
    with pytest.raises(InterceptError, match="it is broken"):
        put_up({"nftables": broken, "ebpf": Recorded}, "auto", replace(PLAN, forwarded=("cni*",)))
