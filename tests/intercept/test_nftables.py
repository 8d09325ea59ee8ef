from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from imds_proxy.intercept.libnftables import NftError
from imds_proxy.intercept.nftables import NftablesRedirect, refused
from imds_proxy.intercept.redirect import InterceptError, Plan
from netns import everything, nft
from plans import PLAN

pytestmark = pytest.mark.usefixtures("network")
_WITHOUT = replace(PLAN, owner_table=False)
_CLOSED = replace(PLAN, closed=True)


@pytest.mark.parametrize("plan", [PLAN, _WITHOUT, _CLOSED])
def test_up_twice_is_once_and_down_leaves_nothing(plan: Plan) -> None:
    before = everything()
    redirect = NftablesRedirect(plan)
    redirect.up()
    once = nft("list ruleset", "-s")
    redirect.up()
    assert nft("list ruleset", "-s") == once
    assert redirect.status().in_force
    assert redirect.renew() is None
    redirect.down()
    redirect.down()
    assert everything() == before
    assert not redirect.status().in_force
    assert redirect.renew() is None


@pytest.mark.parametrize(
    ("plan", "held_by"), [(PLAN, "owner-table"), (_WITHOUT, "lease"), (_CLOSED, "table")]
)
def test_status_says_what_keeps_it_in_force(plan: Plan, held_by: str) -> None:
    redirect = NftablesRedirect(plan)
    redirect.up()
    status = redirect.status()
    assert (status.in_force, status.held_by, status.notes) == (True, held_by, ())
    assert f"table inet {status.name}" in nft("list tables")
    redirect.down()


def test_the_switch_lapses_unless_it_is_renewed() -> None:
    redirect = NftablesRedirect(PLAN)
    redirect.up()
    name = redirect.status().name
    until = time.monotonic() + 3
    while time.monotonic() < until:
        redirect.renew()
        assert "expires" in nft(f"list set inet {name} switch4")
        time.sleep(0.25)
    until = time.monotonic() + 2.5
    while "expires" in nft(f"list set inet {name} switch4"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not redirect.status().in_force
    redirect.renew()
    assert redirect.status().in_force
    redirect.down()


def test_who_holds_a_copy_of_the_descriptor_keeps_the_table() -> None:
    redirect = NftablesRedirect(PLAN)
    assert redirect.descriptors() == {}
    redirect.up()
    copy = os.dup(redirect.descriptors()["nftables"])
    name = redirect.status().name
    redirect._nft.close()  # type: ignore[union-attr]  # as if this process had died
    assert f"table inet {name}" in nft("list tables")
    successor = NftablesRedirect(PLAN)
    successor.up()
    os.close(copy)
    assert nft("list tables") == f"table inet {successor.status().name}\n"
    successor.down()


def test_nobody_else_can_flush_or_delete_an_owned_table() -> None:
    redirect = NftablesRedirect(PLAN)
    redirect.up()
    nft("flush ruleset")
    assert redirect.status().in_force
    assert redirect.renew() is None
    redirect.down()


@pytest.mark.parametrize("plan", [_WITHOUT, _CLOSED])
@pytest.mark.parametrize(
    ("command", "amiss"),
    [
        ("flush ruleset", "was removed"),
        ("flush table inet imds_proxy", "was changed"),
        ("flush chain inet imds_proxy output", "was changed"),
        ("insert rule inet imds_proxy output accept", "was changed"),
    ],
)
def test_what_another_tool_takes_away_is_put_back_and_said(plan: Plan, command: str, amiss: str) -> None:
    redirect = NftablesRedirect(plan)
    redirect.up()
    before = nft("list ruleset", "-s")
    nft(command)
    said = redirect.renew()
    assert said is not None
    assert amiss in said
    assert nft("list ruleset", "-s") == before
    assert redirect.renew() is None
    redirect.down()


def test_a_table_that_an_earlier_run_left_is_replaced() -> None:
    earlier = NftablesRedirect(_CLOSED)
    earlier.up()
    earlier.release()
    assert "table inet imds_proxy\n" in nft("list tables")
    redirect = NftablesRedirect(PLAN)
    redirect.up()
    assert nft("list tables") == f"table inet {redirect.status().name}\n"
    redirect.down()


@pytest.mark.parametrize("plan", [PLAN, _WITHOUT])
def test_a_stop_opens_the_way(plan: Plan) -> None:
    redirect = NftablesRedirect(plan)
    redirect.up()
    redirect.release()
    redirect.release()
    assert nft("list ruleset") == ""


def test_without_the_capability_it_says_which() -> None:
    code = (
        "from imds_proxy.intercept.nftables import NftablesRedirect\n"
        "from imds_proxy.intercept.redirect import InterceptError\n"
        "from plans import PLAN\n"
        "import ctypes\n"
        "assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0\n"
        "try:\n"
        "    NftablesRedirect(PLAN).up()\n"
        "except InterceptError as error:\n"
        "    print(error.slug, error)\n"
    )
    words = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
        sys.executable,
        "-c",
        code,
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.startswith("no-capability"), done.stderr
    assert "CAP_NET_ADMIN" in done.stdout


def test_a_kernel_that_refuses_is_quoted() -> None:
    error = refused(NftError("Error: Could not process rule: Operation not supported\n  table inet x"))
    assert isinstance(error, InterceptError)
    assert error.slug == "nftables-refused"
    assert "Operation not supported" in str(error)


@pytest.mark.parametrize("plan", [PLAN, _WITHOUT, replace(_CLOSED, forwarded=("cni*",))])
def test_the_way_is_opened_for_new_calls_before_the_table_goes(plan: Plan) -> None:
    redirect = NftablesRedirect(plan)
    redirect.open_way()  # not up: nothing to open
    redirect.up()
    redirect.open_way()
    rules = nft("list ruleset")
    assert "type nat hook output" in rules  # as long as it is there, what was translated is
    assert "dnat ip" not in rules
    assert "100.100.100.200 tcp dport 80 ct state new reject" not in rules
    assert "169.254.100.200 tcp dport 200 reject" in rules
    redirect.down()
    assert nft("list ruleset") == ""
