import json

import pytest

from imds_proxy.emulator.items import ITEMS, MAC, SECOND_MAC

DOCUMENTED = (
    "instance-id", "instance/instance-name", "hostname", "instance/instance-type", "serial-number",
    "region-id", "zone-id", "owner-account-id", "tags/instance/Name", "image-id",
    "image/market-place/product-code", "image/market-place/charge-type", "source-address", "network-type",
    "vpc-id", "vpc-cidr-block", "vswitch-id", "vswitch-cidr-block", "instance/max-netbw-egress",
    "instance/max-netbw-ingress", "instance/instance-type-spec/max-netpps",
    "instance/instance-type-spec/max-connections", "dns-conf/nameservers", "ntp-conf/ntp-servers", "mac",
    "private-ipv4", "sub-private-ipv4-list", "public-ipv4", "eipv4", "hibernation/configured",
    "public-keys/0/openssh-key", "instance/virtualization-solution",
    "instance/virtualization-solution-version", "instance/last-host-landing-time", "kms-server",
    "wsus-server/wu-server", "wsus-server/wu-status-server",
)  # fmt: skip
PER_NIC = (
    "network-interface-id", "vpc-id", "vswitch-id", "netmask", "gateway", "vswitch-cidr-block",
    "vpc-cidr-block", "primary-ip-address", "private-ipv4s",
)  # fmt: skip
PER_IPV6_NIC = ("ipv6s", "ipv6-gateway", "ipv6-prefixes", "vswitch-ipv6-cidr-block", "vpc-ipv6-cidr-blocks")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_item_has_a_value(name: str) -> None:
    assert f"meta-data/{name}" in ITEMS


def test_both_nics_have_every_item_and_only_the_first_has_ipv6() -> None:
    macs = "meta-data/network/interfaces/macs"
    for mac in (MAC, SECOND_MAC):
        assert all(f"{macs}/{mac}/{name}" in ITEMS for name in PER_NIC)
    assert all(f"{macs}/{MAC}/{name}" in ITEMS for name in PER_IPV6_NIC)
    assert not any(f"{macs}/{SECOND_MAC}/{name}" in ITEMS for name in PER_IPV6_NIC)


def test_ipv4_lists_are_json_and_ipv6_lists_are_not() -> None:
    nic = f"meta-data/network/interfaces/macs/{MAC}"
    assert json.loads(ITEMS[f"{nic}/private-ipv4s"]) == ["192.168.0.10", "192.168.0.11"]
    with pytest.raises(ValueError):
        json.loads(ITEMS[f"{nic}/ipv6s"])


def test_several_values_of_one_item_stand_on_lines_that_end_in_crlf() -> None:
    assert ITEMS["meta-data/dns-conf/nameservers"] == "100.100.2.136\r\n100.100.2.138"


def test_no_value_ends_in_a_newline_but_the_certificate() -> None:
    assert [path for path, value in ITEMS.items() if value.endswith("\n")] == [
        "global-config/aliyun-assist-server-crt"
    ]
