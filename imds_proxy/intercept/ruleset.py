"""A plan as an nftables table, in the language of nft. Pure.

Priorities: the redirect stands ten before that of other tools (Docker, kube-proxy, firewalld: -100), since
the first chain that translates a connection's address is the last; its filters stand ten before theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

from imds_proxy.config_values import Address
from imds_proxy.intercept.redirect import Plan

PREFIX = "imds_proxy"
"""How the names of our tables begin; the plain one has no more."""
NAT_PRIORITY, FILTER_PRIORITY = -110, -10


def table(name: str, plan: Plan, *, owned: bool) -> str:
    """The table. `owned` binds it to the netlink socket that makes it."""
    lines = ["\tflags owner;"] if owned else []
    for service, _ in plan.pairs():
        family = _family(service)
        lines.append(f"\tset {_switch(service)} {{")
        lines.append(f"\t\ttype {'ipv4_addr' if family == 'ip' else 'ipv6_addr'} . inet_service;")
        lines.append(f"\t\tflags timeout;\n\t\telements = {_element(service, plan)};\n\t}}")
    lines += _chain("output", "nat", "output", NAT_PRIORITY, _redirect_local(plan))
    lines += _chain("guard", "filter", "input", FILTER_PRIORITY, _guard(plan))
    if plan.forwarded:
        lines += _chain("prerouting", "nat", "prerouting", NAT_PRIORITY, _redirect_forwarded(plan))
        # A source that is not routed back to where it came from is somebody else's.
        lines += _chain("spoofed", "filter", "prerouting", NAT_PRIORITY, _spoofed(plan))
    if plan.closed:
        lines += _chain("refuse", "filter", "output", FILTER_PRIORITY, _refuse_local(plan))
        if plan.forwarded:
            lines += _chain("refuse_forwarded", "filter", "forward", FILTER_PRIORITY, _refuse_forwarded(plan))
    body = "\n".join(lines)
    return f"table inet {name} {{\n{body}\n}}\n"


def renewal(name: str, plan: Plan) -> str:
    """The dead man's switch for another `plan.lease` seconds.

    Emptied and filled in one transaction: adding an element that is there leaves its time as it is.
    """
    return "".join(
        f"flush set inet {name} {_switch(service)}\n"
        f"add element inet {name} {_switch(service)} {_element(service, plan)}\n"
        for service, _ in plan.pairs()
    )


def opening(name: str, plan: Plan) -> str:
    """Takes away what redirects or refuses new connections; the listener stays guarded."""
    chains = ["output", *(["prerouting"] if plan.forwarded else [])]
    if plan.closed:
        chains += ["refuse", *(["refuse_forwarded"] if plan.forwarded else [])]
    return "".join(f"flush chain inet {name} {chain}\n" for chain in chains)


def removal(name: str) -> str:
    """Takes the table away, whether or not it is there."""
    return f"add table inet {name}\ndelete table inet {name}\n"


def _chain(name: str, kind: str, hook: str, priority: int, rules: Iterator[str]) -> list[str]:
    head = f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
    return [f"\tchain {name} {{", head, *(f"\t\t{rule}" for rule in rules), "\t}"]


def _redirect_local(plan: Plan) -> Iterator[str]:
    yield from _ours(plan, "return")
    for service, listener in plan.pairs():
        yield f"{_to_switch(service)} {_translate(listener)}"


def _redirect_forwarded(plan: Plan) -> Iterator[str]:
    for interface in plan.forwarded:
        for service, listener in plan.pairs():
            yield f"{_from(interface)} {_to_switch(service)} {_translate(listener)}"


def _guard(plan: Plan) -> Iterator[str]:
    """The listener takes only what was redirected: else who connects to it could pass as another."""
    for _, listener in plan.pairs():
        yield f"{_to(listener)} ct status dnat accept"
        yield f"{_to(listener)} reject with tcp reset"


def _spoofed(plan: Plan) -> Iterator[str]:
    for interface in plan.forwarded:
        for service, _ in plan.pairs():
            yield f"{_from(interface)} {_to(service)} fib saddr . iif oif missing drop"


def _refuse_local(plan: Plan) -> Iterator[str]:
    """What still goes to the service was not redirected: the switch has lapsed, or it is ours."""
    yield from _ours(plan, "accept")
    for service, _ in plan.pairs():
        yield f"{_to(service)} ct state new reject with tcp reset"


def _refuse_forwarded(plan: Plan) -> Iterator[str]:
    for interface in plan.forwarded:
        for service, _ in plan.pairs():
            yield f"{_from(interface)} {_to(service)} ct state new reject with tcp reset"


def _ours(plan: Plan, verdict: str) -> Iterator[str]:
    yield f"meta mark {plan.mark} {verdict}"
    if plan.exempt_uid is not None:
        yield f"meta skuid {plan.exempt_uid} {verdict}"


def _family(address: Address) -> str:
    return "ip6" if ":" in address.host else "ip"


def _switch(service: Address) -> str:
    return "switch6" if ":" in service.host else "switch4"


def _element(service: Address, plan: Plan) -> str:
    lease = f" timeout {round(plan.lease * 1000)}ms" if plan.lease is not None else ""
    return f"{{ {service.host} . {service.port}{lease} }}"


def _from(interface: str) -> str:
    return 'iifname != "lo"' if interface == "*" else f'iifname "{interface}"'


def _to(address: Address) -> str:
    return f"{_family(address)} daddr {address.host} tcp dport {address.port}"


def _to_switch(service: Address) -> str:
    return f"{_family(service)} daddr . tcp dport @{_switch(service)}"


def _translate(listener: Address) -> str:
    return f"dnat {_family(listener)} to {listener}"
