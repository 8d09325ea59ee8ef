"""The items of one imaginary instance, with plausible values.

Knows nothing of listings, HTTP, time or settings. Paths are relative to a version (`meta-data/mac`).
"""

from __future__ import annotations

from types import MappingProxyType

INSTANCE_ID = "i-bp1emulated0000000001"
ACCOUNT_ID = "1234567890123456"
REGION_ID = "cn-hangzhou"
ZONE_ID = "cn-hangzhou-i"
SERIAL_NUMBER = "3f8d7a52-9c1b-4f4e-8a55-0f6c1d2e3b4a"
PRIVATE_IPV4 = "192.168.0.10"
MAC = "00:16:3e:00:00:01"
SECOND_MAC = "00:16:3e:00:00:02"
IMAGE_ID = "aliyun_3_x64_20G_alibase_20250117.vhd"
INSTANCE_TYPE = "ecs.g7.large"
HOST_NAME = "iZbp1emulated0000000001Z"
VPC_ID = "vpc-bp1emulated000000001"
VSWITCH_ID = "vsw-bp1emulated000000001"
VPC_CIDR = "192.168.0.0/16"
VSWITCH_CIDR = "192.168.0.0/24"
# The author of cloud-init's data source shows CRLF between the values of one item, in `all` and in the leaf.
SEVERAL = "\r\n"

_KEY = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7emulatedemulatedemulatedemulatedemulatedemulatedemulated"
    "emulatedemulatedemulatedemulatedemulatedemulatedemulatedemulatedemulatedemulatedemulated skp-emulated"
)
_CERTIFICATE = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBszCCAVmgAwIBAgIUemulatedemulatedemulatedemulAwCgYIKoZIzj0EAwIw\n"
    "-----END CERTIFICATE-----\n"
)


def _nic(mac: str, items: dict[str, str]) -> dict[str, str]:
    return {f"meta-data/network/interfaces/macs/{mac}/{name}": value for name, value in items.items()}


_INSTANCE = {
    "meta-data/instance-id": INSTANCE_ID,
    "meta-data/hostname": HOST_NAME,
    "meta-data/serial-number": SERIAL_NUMBER,
    "meta-data/region-id": REGION_ID,
    "meta-data/zone-id": ZONE_ID,
    "meta-data/owner-account-id": ACCOUNT_ID,
    "meta-data/image-id": IMAGE_ID,
    "meta-data/image/market-place/product-code": "cmjj012345",
    "meta-data/image/market-place/charge-type": "PrePaid",
    "meta-data/source-address": SEVERAL.join(
        ("http://mirrors.cloud.aliyuncs.com", "http://mirrors.aliyuncs.com")
    ),
    "meta-data/instance/instance-name": "emulated-instance",
    "meta-data/instance/instance-type": INSTANCE_TYPE,
    "meta-data/instance/max-netbw-egress": "2560000",
    "meta-data/instance/max-netbw-ingress": "2560000",
    "meta-data/instance/instance-type-spec/max-netpps": "900000",
    "meta-data/instance/instance-type-spec/max-connections": "250000",
    "meta-data/instance/virtualization-solution": "ECS Virt",
    "meta-data/instance/virtualization-solution-version": "2.0",
    "meta-data/instance/last-host-landing-time": "2024-11-17 10:02:41",
    "meta-data/hibernation/configured": "false",
    "meta-data/tags/instance/Name": "emulated-instance",
    "meta-data/tags/instance/env": "test",
    "meta-data/tags/instance/acs:autoscaling:scalingGroupId": "asg-bp1emulated000000001",
    "meta-data/public-keys/0/openssh-key": _KEY,
    "meta-data/public-keys/skp-bp1emulated000000001/openssh-key": _KEY,
    "meta-data/disks/bp1emulated0000000001/id": "d-bp1emulated0000000001",
    "meta-data/disks/bp1emulated0000000001/name": "",
    "meta-data/disks/bp1emulated0000000002/id": "d-bp1emulated0000000002",
    "meta-data/disks/bp1emulated0000000002/name": "data",
    "meta-data/kms-server": "kms.cloud.aliyuncs.com",
    "meta-data/wsus-server/wu-server": "http://update.cloud.aliyuncs.com",
    "meta-data/wsus-server/wu-status-server": "http://update.cloud.aliyuncs.com",
}
_NETWORK = {
    "meta-data/network-type": "vpc",
    "meta-data/vpc-id": VPC_ID,
    "meta-data/vpc-cidr-block": VPC_CIDR,
    "meta-data/vswitch-id": VSWITCH_ID,
    "meta-data/vswitch-cidr-block": VSWITCH_CIDR,
    "meta-data/mac": MAC,
    "meta-data/private-ipv4": PRIVATE_IPV4,
    "meta-data/sub-private-ipv4-list": "192.168.0.11",
    "meta-data/public-ipv4": "203.0.113.10",
    "meta-data/eipv4": "203.0.113.10",
    "meta-data/dns-conf/nameservers": SEVERAL.join(("100.100.2.136", "100.100.2.138")),
    "meta-data/ntp-conf/ntp-servers": SEVERAL.join(
        ("ntp1.aliyun.com", "ntp2.aliyun.com", "ntp1.cloud.aliyuncs.com")
    ),
    **_nic(
        MAC,
        {
            "network-interface-id": "eni-bp1emulated000000001",
            "vpc-id": VPC_ID,
            "vswitch-id": VSWITCH_ID,
            "netmask": "255.255.255.0",
            "gateway": "192.168.0.253",
            "vswitch-cidr-block": VSWITCH_CIDR,
            "vpc-cidr-block": VPC_CIDR,
            "primary-ip-address": PRIVATE_IPV4,
            "private-ipv4s": f'["{PRIVATE_IPV4}","192.168.0.11"]',
            "ipv4-prefixes": '["192.168.0.64/28"]',
            # The documentation shows these unquoted: no JSON.
            "ipv6s": "[2001:db8:0:1::10,2001:db8:0:1::11]",
            "ipv6-prefixes": "[2001:db8:0:1:8000::/80]",
            "ipv6-gateway": "2001:db8:0:1:ffff:ffff:ffff:fff7",
            "vswitch-ipv6-cidr-block": "2001:db8:0:1::/64",
            "vpc-ipv6-cidr-blocks": "[2001:db8::/56]",
        },
    ),
    **_nic(
        SECOND_MAC,
        {
            "network-interface-id": "eni-bp1emulated000000002",
            "vpc-id": VPC_ID,
            "vswitch-id": "vsw-bp1emulated000000002",
            "netmask": "255.255.255.0",
            "gateway": "192.168.1.253",
            "vswitch-cidr-block": "192.168.1.0/24",
            "vpc-cidr-block": VPC_CIDR,
            "primary-ip-address": "192.168.1.20",
            "private-ipv4s": '["192.168.1.20"]',
        },
    ),
}
_OUTSIDE_META_DATA = {
    "maintenance/active-system-events": "[]",
    "global-config/aliyun-assist-server-url": f"https://{REGION_ID}.axt.aliyuncs.com/luban/api",
    "global-config/aliyun-assist-agent-provision": '{"activationCode":"emulated-enrolment-secret"}',
    "global-config/aliyun-assist-server-crt": _CERTIFICATE,
}

ITEMS = MappingProxyType({**_INSTANCE, **_NETWORK, **_OUTSIDE_META_DATA})
"""Path to value of every item that neither a setting nor the clock decides; a value has no trailing LF."""
