from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from imds_proxy.intercept.conflicts import Conflict, conflicts
from imds_proxy.intercept.ruleset import table
from netns import nft
from plans import PLAN, SERVICES

pytestmark = pytest.mark.usefixtures("network")
_OTHERS = Path(__file__).parent.parent / "support" / "others.nft"


def found() -> list[Conflict]:
    return conflicts(json.loads(nft("list ruleset", "-j")), SERVICES)


@pytest.mark.parametrize(
    "rule",
    [
        "ip daddr 100.100.100.200 tcp dport 80 dnat ip to 10.0.0.1:8181",
        "ip daddr 100.100.100.0/24 tcp dport { 80, 443 } redirect to :8181",
        "ip daddr { 1.2.3.4, 100.100.100.1-100.100.100.255 } tcp dport 1-100 redirect to :8181",
        "ip6 daddr fd00:100::100:200 meta l4proto tcp redirect to :8181",
        "ip daddr != 10.0.0.0/8 tcp dport 80 redirect to :8181",
        "meta l4proto tcp redirect to :15001",
        "ip daddr @metadata tcp dport 80 redirect to :8181",
    ],
)
def test_a_rule_that_sends_calls_elsewhere_is_found(rule: str) -> None:
    nft(
        "add table inet x; add chain inet x out { type nat hook output priority -100; };"
        "add set inet x metadata { type ipv4_addr; flags interval; elements = { 100.100.100.200 }; };"
        f"add rule inet x out {rule}"
    )
    assert found() == [Conflict("inet x", "out", "translates")]
    assert "table inet x, chain out sends calls to the service elsewhere" in str(found()[0])


@pytest.mark.parametrize(
    "rule",
    ["ip daddr 100.100.100.200 drop", "ip daddr 100.100.100.200 meta skuid != 0 reject with tcp reset"],
)
def test_a_firewall_of_the_service_is_found_since_a_redirect_goes_past_it(rule: str) -> None:
    nft(
        "add table ip x; add chain ip x out { type filter hook output priority 0; };"
        f"add rule ip x out {rule}"
    )
    assert found() == [Conflict("ip x", "out", "refuses")]
    assert "say the same in policy" in str(found()[0])


@pytest.mark.parametrize(
    "rule",
    [
        "ip daddr 100.100.100.201 tcp dport 80 redirect to :8181",
        "ip daddr 100.100.100.200 tcp dport 8080 redirect to :8181",
        "ip daddr != 100.100.100.200 tcp dport 80 redirect to :8181",
        "ip daddr 100.100.100.200 accept",
        "tcp dport 80 redirect to :8181",
        'oifname "eth1" drop',
        "ip daddr @empty tcp dport 80 redirect to :8181",
    ],
)
def test_a_rule_that_does_not_concern_the_service_is_none(rule: str) -> None:
    nft(
        "add table inet x; add chain inet x out { type nat hook output priority -100; };"
        "add set inet x empty { type ipv4_addr; };"
        f"add rule inet x out {rule}"
    )
    assert found() == []


def test_neither_our_own_tables_nor_usual_neighbours_are_conflicts() -> None:
    nft(table("imds_proxy", PLAN, owned=False))
    subprocess.run(["nft", "-f", str(_OTHERS)], check=True)
    assert found() == []


def test_rules_of_iptables_are_read_too() -> None:
    iptables = shutil.which("iptables-nft")
    assert iptables is not None
    for words in (
        "-t nat -A OUTPUT -d 100.100.100.200/32 -p tcp --dport 80 -j DNAT --to-destination 127.0.0.1:8181",
        "-t filter -A OUTPUT -d 100.100.100.200 -m owner ! --uid-owner 0 -j DROP",
    ):
        subprocess.run([iptables, *words.split()], check=True)
    assert found() == [Conflict("ip nat", "OUTPUT", "translates"), Conflict("ip filter", "OUTPUT", "refuses")]
