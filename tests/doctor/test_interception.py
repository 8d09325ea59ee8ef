"""What the doctor says of the redirect, in network namespaces of the test's own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imds_proxy.config import Address, Config, Intercept
from imds_proxy.doctor import interception
from imds_proxy.doctor.finding import Finding
from imds_proxy.intercept.nftables import NftablesRedirect
from netns import ip, nft, own_network
from plans import PLAN, SERVICES

PROC = Path("/proc/thread-self")


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


def test_the_trial_takes_a_redirect_and_leaves_nothing() -> None:
    finding = interception.trial()
    assert finding == Finding("redirect-trial", "ok", "nftables takes a redirect that ends with its maker")
    assert nft("list ruleset") == ""


@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        ("print('lease the kernel has none')", "warn", "rests on its 2 s lease: the kernel has none"),
        ("raise SystemExit('libnftables.so.1 cannot be loaded')", "bad", "libnftables.so.1 cannot be loaded"),
        ("raise SystemExit('unshare: Operation not permitted')", "unknown", "cannot be tried: unshare"),
    ],
)
def test_what_the_trial_lacks_is_told(code: str, state: str, said: str) -> None:
    finding = interception.trial((sys.executable, "-c", code))
    assert finding.state == state
    assert said in finding.sentence


def test_a_trial_that_cannot_start_is_unknown() -> None:
    assert interception.trial(("/no/such/program",)).state == "unknown"


def test_a_redirect_that_stands_is_told() -> None:
    assert interception.standing(Config()).state == "ok"
    redirect = NftablesRedirect(replace(PLAN, closed=True))
    redirect.up()
    finding = interception.standing(Config())
    assert (finding.state, finding.sentence.partition(":")[0]) == ("warn", "refusing")
    redirect.down()


def test_an_address_of_another_interface_is_bad() -> None:
    assert interception.addresses(Intercept()).state == "ok"
    ip("link add name there type bridge")
    ip("addr add 169.254.100.200/16 dev there")
    assert "is an address of there" in interception.addresses(Intercept()).sentence


def test_ipv6_that_is_off_is_a_warning() -> None:
    Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1")
    assert "by IPv6 would not be redirected" in interception.addresses(Intercept()).sentence


def test_rules_of_other_tools_are_named_and_a_firewall_of_the_service_too() -> None:
    assert [finding.state for finding in interception.others(SERVICES, PROC)] == ["ok"]
    nft(
        "add table ip x; add chain ip x nat { type nat hook output priority -100; };"
        "add chain ip x filter { type filter hook output priority 0; };"
        "add rule ip x nat ip daddr 100.100.100.200 tcp dport 80 dnat to 10.0.0.1;"
        "add rule ip x filter ip daddr 100.100.100.200 meta skuid != 0 drop"
    )
    bad, warn = interception.others(SERVICES, PROC)
    assert (bad.state, warn.state) == ("bad", "warn")
    assert "table ip x, chain nat sends calls to the service elsewhere" in bad.sentence
    assert "table ip x, chain filter refuses calls to the service" in warn.sentence


def test_tables_of_iptables_legacy_are_read_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/ip_tables_names").write_text("nat\n")
    monkeypatch.setattr(interception, "find_program", lambda name: None)
    (finding,) = interception.others(SERVICES, tmp_path)
    assert (finding.state, "no iptables-legacy-save" in finding.sentence) == ("unknown", True)
    monkeypatch.setattr(interception, "find_program", lambda name: f"/sbin/{name}")
    rule = "-A OUTPUT -d 100.100.100.200/32 -j DROP"
    monkeypatch.setattr(interception, "ask_program", lambda path: (0, rule))
    (finding,) = interception.others(SERVICES, tmp_path)
    assert (finding.state, "name the service" in finding.sentence) == ("warn", True)


def test_other_ports_names_and_addresses_of_the_service_are_told(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n100.100.100.200 metadata.internal imds # ours\n")
    ip("addr add 100.100.100.200/32 dev lo")
    config = replace(Config(), upstream=replace(Config().upstream, address=Address("10.0.0.9", 80)))
    with socket.create_server(("100.100.100.200", 443)), socket.create_connection(("100.100.100.200", 443)):
        findings = interception.coverage(config, PROC, hosts)
    assert {finding.state for finding in findings[1:]} == {"warn"}
    said = "\n".join(finding.sentence for finding in findings)
    assert "a redirect covers 100.100.100.200:80 and [fd00:100::100:200]:80" in said
    assert "a connection to 100.100.100.200:443 is open" in said
    assert "upstream.address is 10.0.0.9:80" in said
    assert "metadata.internal is the service by" in said


def test_an_ordinary_machine_has_nothing_uncovered() -> None:
    assert [finding.state for finding in interception.coverage(Config(), PROC, Path("/nothing"))] == ["ok"]
