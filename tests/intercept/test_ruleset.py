from __future__ import annotations

from dataclasses import replace

import pytest

from imds_proxy.intercept.ruleset import removal, renewal, table
from netns import nft
from plans import LISTENERS, PLAN


def test_a_plan_is_a_table_to_be_read() -> None:
    plan = replace(PLAN, listeners=LISTENERS[:1], exempt_uid=64000, forwarded=("cni*",))
    assert table("imds_proxy_x", plan, owned=True).split("\n") == [
        "table inet imds_proxy_x {",
        "\tflags owner;",
        "\tset switch4 {",
        "\t\ttype ipv4_addr . inet_service;",
        "\t\tflags timeout;",
        "\t\telements = { 100.100.100.200 . 80 timeout 2000ms };",
        "\t}",
        "\tchain output {",
        "\t\ttype nat hook output priority -110; policy accept;",
        "\t\tmeta mark 200 return",
        "\t\tmeta skuid 64000 return",
        "\t\tip daddr . tcp dport @switch4 dnat ip to 169.254.100.200:200",
        "\t}",
        "\tchain guard {",
        "\t\ttype filter hook input priority -10; policy accept;",
        "\t\tip daddr 169.254.100.200 tcp dport 200 ct status dnat accept",
        "\t\tip daddr 169.254.100.200 tcp dport 200 reject with tcp reset",
        "\t}",
        "\tchain prerouting {",
        "\t\ttype nat hook prerouting priority -110; policy accept;",
        '\t\tiifname "cni*" ip daddr . tcp dport @switch4 dnat ip to 169.254.100.200:200',
        "\t}",
        "\tchain spoofed {",
        "\t\ttype filter hook prerouting priority -110; policy accept;",
        '\t\tiifname "cni*" ip daddr 100.100.100.200 tcp dport 80 fib saddr . iif oif missing drop',
        "\t}",
        "}",
        "",
    ]


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("lease", [2.0, None])
@pytest.mark.parametrize("forwarded", [(), ("*",), ("cni0", "veth*")])
def test_the_kernel_takes_every_plan(
    owned: bool, closed: bool, lease: float | None, forwarded: tuple[str, ...]
) -> None:
    plan = replace(PLAN, closed=closed, lease=lease, forwarded=forwarded, exempt_uid=64000)
    last = "" if owned else removal("imds_proxy_x")  # an owned one goes with the program that made it
    nft(table("imds_proxy_x", plan, owned=owned) + renewal("imds_proxy_x", plan) + last)
    assert nft("list ruleset") == ""


@pytest.mark.usefixtures("network")
def test_a_removal_needs_no_table() -> None:
    nft(removal("imds_proxy"))
    assert nft("list ruleset") == ""
