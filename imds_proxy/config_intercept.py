"""The section `intercept` of the configuration: its keys, ranges, defaults and contradictions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from imds_proxy.config_reader import key
from imds_proxy.config_rules import Flag
from imds_proxy.config_values import Address, Count, SocketAddress, Word, quoted

Method = Literal["auto", "nftables", "ebpf"]
OnFailure = Literal["open", "closed"]

_INTERFACE = re.compile(r"\*|[A-Za-z0-9_.@-]{1,14}\*|[A-Za-z0-9_.@-]{1,15}", re.ASCII)


class InterfaceName:
    """The name of a network interface, or how names begin."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "an interface like docker0, the beginning of names like cni*, or * for all but lo"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if not _INTERFACE.fullmatch(text) or text in {".", "..", "lo"}:
            raise ValueError(f"{quoted(text)} is no interface to redirect from; write {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Intercept:
    """How the service's address is redirected to the proxy, by `run --intercept` or `intercept up`."""

    method: Method = field(
        default="auto",
        metadata=key(Word(get_args(Method)), "How; auto: nftables where it can be had, else ebpf."),
    )
    on_failure: OnFailure = field(
        default="open",
        metadata=key(
            Word(get_args(OnFailure)),
            "When the daemon is dead or hangs. open: calls go to the service; closed: they are refused.",
        ),
    )
    address: tuple[Address, ...] = field(
        default=(Address("169.254.100.200", 200), Address("fd64:64c8::200", 200)),
        metadata=key(
            SocketAddress(listening=False),
            "Where redirected calls arrive: an address of `lo`, made if need be; one of each family.",
            many=True,
            least=1,
            single=True,
        ),
    )
    forwarded: tuple[str, ...] = field(
        default=(),
        metadata=key(
            InterfaceName(),
            "Interfaces whose forwarded traffic (containers, pods) is redirected too.",
            many=True,
        ),
    )
    mark: int = field(
        default=200,
        metadata=key(
            Count(1, 0xFFFFFFFF), "The mark (SO_MARK) of the proxy's own calls, which are let through."
        ),
    )
    exempt_uid: int = field(
        default=0,
        metadata=key(
            Count(0, 0xFFFFFFFE),
            "A user of the proxy alone, whose calls are let through without a mark; 0: none.",
        ),
    )
    owner_table: bool = field(
        default=True,
        metadata=key(
            Flag(), "false: never the kernel's owner tables; when the daemon dies a lease must lapse."
        ),
    )


def intercept_conflicts(
    intercept: Intercept, listen: Sequence[Address], upstream: Address
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What contradicts what: the keys, and a sentence."""
    families = [":" in address.host for address in intercept.address]
    if len(set(families)) != len(families):
        yield (
            ("intercept.address",),
            "intercept.address has two addresses of one family; one of each is allowed",
        )
    for address in intercept.address:
        if address in listen:
            yield (
                ("intercept.address", "listen"),
                f"intercept.address {address} stands in listen too; it takes redirected calls only, "
                "so direct ones need another address or port",
            )
        if address == upstream:
            yield (
                ("intercept.address", "upstream.address"),
                f"intercept.address {address} is where upstream.address leads: a loop; "
                "one of the two must be another address or port",
            )
        if intercept.forwarded and ipaddress.ip_address(address.host).is_loopback:
            yield (
                ("intercept.address", "intercept.forwarded"),
                f"intercept.address {address} cannot take forwarded calls; a link-local address can",
            )
    if intercept.method == "ebpf" and intercept.forwarded:
        yield (
            ("intercept.method", "intercept.forwarded"),
            "intercept.forwarded needs intercept.method nftables: eBPF redirects local processes only",
        )
