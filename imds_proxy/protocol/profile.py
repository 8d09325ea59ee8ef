"""Provider profiles: what differs from cloud to cloud, as data.

Knows no request and no rule; the parser and the form rules read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ItemClass(Enum):
    """How an item behaves over time; what a cache and a ledger may do with it follows from this."""

    STATIC = "static"  # fixed for the boot
    SLOW = "slow"  # changes by an operator's action
    VOLATILE = "volatile"  # polled: spot termination, maintenance, addresses
    LISTING = "listing"  # a directory
    CREDENTIALS = "credentials"  # JSON with an Expiration
    USER_DATA = "user-data"
    IDENTITY = "identity"  # an identity document; its query matters
    AGGREGATE = "aggregate"  # as sensitive and as volatile as anything in it
    NEVER = "never"  # never cached, never logged: nonces, enrolment secrets
    TOKEN = "token"  # noqa: S105  (a class of item, not a secret)
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider. Header names are lower-case bytes; TTLs are whole seconds.

    `item_classes` is searched from the top, patterns below any version prefix: `*` is one segment, `**`
    (at the end only) any number, a trailing slash in the request marks a listing where nothing matched.
    """

    name: str
    addresses: tuple[str, ...]
    port: int
    token_path: str
    token_header: bytes
    ttl_header: bytes
    ttl_min: int
    ttl_max: int
    forwarding_headers: frozenset[bytes]
    browser_headers: frozenset[bytes]
    versions: tuple[str, ...]
    item_classes: tuple[tuple[str, ItemClass], ...]
    query_items: tuple[str, ...]
    instance_id_path: str

    @property
    def roots(self) -> frozenset[str]:
        """First segments of items: any other first segment is a version, known or not."""
        return frozenset(text.split("/")[0] for text, _ in self.item_classes)


ALIBABA = Profile(
    name="alibaba",
    # IPv4 documented; IPv6 by the provider's contributor in cloud-init issue 6892.
    addresses=("100.100.100.200", "fd00:100::100:200"),
    port=80,
    token_path="/latest/api/token",  # noqa: S106  (a path; also for data under dated versions)
    token_header=b"x-aliyun-ecs-metadata-token",
    ttl_header=b"x-aliyun-ecs-metadata-token-ttl-seconds",
    ttl_min=1,
    ttl_max=21600,
    # The service itself refuses X-Forwarded-For on the PUT; the others are our own caution. Not
    # X-Forwarded-Proto: service meshes add it to a pod's own calls.
    forwarding_headers=frozenset(
        {b"x-forwarded-for", b"x-forwarded-host", b"forwarded", b"via", b"x-real-ip"}
    ),
    # Not Sec-Fetch-Mode: Node's own fetch sends it.
    browser_headers=frozenset(
        {
            b"origin",
            b"referer",
            b"cookie",
            b"upgrade-insecure-requests",
            b"sec-fetch-dest",
            b"sec-fetch-site",
            b"sec-fetch-user",
        }
    ),
    versions=("latest", "2016-01-01"),
    item_classes=(
        ("api/token", ItemClass.TOKEN),
        ("user-data", ItemClass.USER_DATA),
        ("vendor-data", ItemClass.USER_DATA),
        ("dynamic/instance-identity/pkcs7", ItemClass.NEVER),
        ("dynamic/instance-identity/**", ItemClass.IDENTITY),
        ("global-config/**", ItemClass.NEVER),
        ("maintenance/**", ItemClass.VOLATILE),
        ("meta-data/all", ItemClass.AGGREGATE),
        ("meta-data/ram/security-credentials/*", ItemClass.CREDENTIALS),
        ("meta-data/ram/**", ItemClass.LISTING),
        ("meta-data/instance/spot/**", ItemClass.VOLATILE),
        ("meta-data/instance-id", ItemClass.STATIC),
        ("meta-data/serial-number", ItemClass.STATIC),
        ("meta-data/region-id", ItemClass.STATIC),
        ("meta-data/zone-id", ItemClass.STATIC),
        ("meta-data/owner-account-id", ItemClass.STATIC),
        ("meta-data/mac", ItemClass.STATIC),
        ("meta-data/network-type", ItemClass.STATIC),
        ("meta-data/source-address", ItemClass.STATIC),
        ("meta-data/image/**", ItemClass.STATIC),
        ("meta-data/dns-conf/**", ItemClass.STATIC),
        ("meta-data/ntp-conf/**", ItemClass.STATIC),
        ("meta-data/hibernation/**", ItemClass.STATIC),
        ("meta-data/public-keys/**", ItemClass.STATIC),
        ("meta-data/kms-server", ItemClass.STATIC),
        ("meta-data/wsus-server/**", ItemClass.STATIC),
        ("meta-data/instance/virtualization-solution", ItemClass.STATIC),
        ("meta-data/instance/virtualization-solution-version", ItemClass.STATIC),
        ("meta-data/network/interfaces/macs", ItemClass.VOLATILE),
        ("meta-data/network/interfaces/macs/*/network-interface-id", ItemClass.STATIC),
        ("meta-data/network/interfaces/macs/*/private-ipv4s", ItemClass.VOLATILE),
        ("meta-data/network/interfaces/macs/*/ipv4-prefixes", ItemClass.VOLATILE),
        ("meta-data/network/interfaces/macs/*/ipv6-prefixes", ItemClass.VOLATILE),
        ("meta-data/network/interfaces/macs/*/ipv6s", ItemClass.VOLATILE),
        ("meta-data/disks/**", ItemClass.VOLATILE),
        ("meta-data/tags/**", ItemClass.VOLATILE),
        ("meta-data/**", ItemClass.SLOW),
    ),
    query_items=("dynamic/instance-identity/pkcs7", "dynamic/instance-identity/document"),
    instance_id_path="/latest/meta-data/instance-id",
)

PROFILES: dict[str, Profile] = {ALIBABA.name: ALIBABA}
