"""Rules of other tools that concern calls to the service, found in a ruleset.

A redirect comes before every filter: what a firewall says of the service's address no longer meets calls
that are redirected. And what others translate, the proxy's own calls may meet.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from imds_proxy.config_values import Address
from imds_proxy.intercept.libnftables import Nftables, NftError
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.intercept.ruleset import PREFIX

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_TRANSLATING = frozenset({"dnat", "redirect", "tproxy", "DNAT", "REDIRECT", "TPROXY"})
_REFUSING = frozenset({"drop", "reject", "DROP", "REJECT"})


@dataclass(frozen=True, slots=True)
class Conflict:
    """`translates`: sends such calls elsewhere; `refuses`: forbids them, to some at least."""

    table: str
    chain: str
    effect: Literal["translates", "refuses"]

    def __str__(self) -> str:
        where = f"table {self.table}, chain {self.chain}"
        if self.effect == "translates":
            return f"{where} sends calls to the service elsewhere: the proxy's own calls may follow it"
        return f"{where} refuses calls to the service: a redirect goes past it; say the same in policy.rules"


def standing_conflicts(services: Sequence[Address]) -> list[Conflict]:
    """The same for the kernel's ruleset now, which is asked for; none where it cannot be read."""
    try:
        nft = Nftables()
    except InterceptError:
        return []
    try:
        return conflicts(json.loads(nft.run("list ruleset", as_json=True)), services)
    except (NftError, ValueError):  # no right to, or a library without JSON
        return []
    finally:
        nft.close()


def conflicts(ruleset: Mapping[str, Any], services: Sequence[Address]) -> list[Conflict]:
    """What stands in the ruleset (as libnftables gives it in JSON) besides our own tables."""
    objects = ruleset.get("nftables", [])
    sets = {
        (one["set"]["family"], one["set"]["table"], one["set"]["name"]): one["set"].get("elem", [])
        for one in objects
        if "set" in one
    }
    found = dict.fromkeys(
        conflict
        for one in objects
        if "rule" in one and not one["rule"]["table"].startswith(PREFIX)
        for conflict in _of_rule(one["rule"], sets, services)
    )
    return list(found)


def _of_rule(
    rule: Mapping[str, Any], sets: Mapping[tuple[str, str, str], Any], services: Sequence[Address]
) -> Iterator[Conflict]:
    effect = _effect(rule["expr"])
    if effect is None:
        return
    named: Mapping[str, Any] = {
        name: elements
        for (family, table, name), elements in sets.items()
        if (family, table) == (rule["family"], rule["table"])
    }
    tests = [one["match"] for one in rule["expr"] if "match" in one]
    ports = [test for test in tests if _field(test) == "dport"]
    targets = [test for test in tests if _field(test) == "daddr"]
    others = [test for test in tests if test not in ports and test not in targets and not _is_protocol(test)]
    for service in services:
        ip = ipaddress.ip_address(service.host)
        families = {rule["family"], *(test["left"]["payload"]["protocol"] for test in targets)}
        if {4: "ip6", 6: "ip"}[ip.version] in families:
            continue
        if not all(_agrees(test, service.port, named) for test in ports):
            continue
        # Without an address, only what takes all of everybody is about the service.
        about = all(_agrees(test, ip, named) for test in targets) if targets else not others and not ports
        if about and (targets or effect == "translates"):
            yield Conflict(f"{rule['family']} {rule['table']}", rule["chain"], effect)
            return


def _effect(expressions: Sequence[Any]) -> Literal["translates", "refuses"] | None:
    for one in expressions:
        words = set(one) if isinstance(one, dict) else {one}
        if isinstance(one, dict) and "xt" in one:  # iptables' own targets
            words = {one["xt"].get("name")} if isinstance(one["xt"], dict) else set()
        if words & _TRANSLATING:
            return "translates"
        if words & _REFUSING:
            return "refuses"
    return None


def _field(test: Mapping[str, Any]) -> str | None:
    left = test["left"]
    payload = left.get("payload") if isinstance(left, dict) else None
    field = payload.get("field") if isinstance(payload, dict) else None
    return field if isinstance(field, str) else None


def _is_protocol(test: Mapping[str, Any]) -> bool:
    left = test["left"]
    return isinstance(left, dict) and left.get("meta", {}).get("key") in {"l4proto", "nfproto"}


def _agrees(test: Mapping[str, Any], value: _Ip | int, named: Mapping[str, Any]) -> bool:
    holds = _holds(test["right"], value, named)
    return not holds if test["op"] == "!=" else holds


def _holds(right: Any, value: _Ip | int, named: Mapping[str, Any]) -> bool:
    """Whether `right` is the value, or has it: in a prefix, a range or a set."""
    if isinstance(right, list):
        return any(_holds(one, value, named) for one in right)
    if isinstance(right, dict):
        if "set" in right:
            return _holds(right["set"], value, named)
        if "elem" in right:
            return _holds(right["elem"].get("val"), value, named)
        if "range" in right:
            low, high = (_number(one) for one in right["range"])
            number = value if isinstance(value, int) else int(value)
            return low is not None and high is not None and low <= number <= high
        if "prefix" in right and not isinstance(value, int):
            prefix = right["prefix"]
            return value in ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
        return False
    if isinstance(right, str) and right.startswith("@"):
        return _holds(named.get(right[1:], []), value, named)
    return str(right) == str(value)


def _number(end: Any) -> int | None:
    try:
        return end if isinstance(end, int) else int(ipaddress.ip_address(end))
    except ValueError:
        return None
