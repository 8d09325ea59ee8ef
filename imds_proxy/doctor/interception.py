"""Checks of the redirect: what stands, what stands in its way, what it does not cover.

Tries what the kernel can do in a network namespace of a child process; nothing of the host is touched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from imds_proxy.config import Address, Config, Intercept
from imds_proxy.doctor.finding import Finding
from imds_proxy.doctor.network import tcp_sockets
from imds_proxy.doctor.programs import ask_program, find_program
from imds_proxy.intercept import alone
from imds_proxy.intercept.addresses import holder
from imds_proxy.intercept.conflicts import Conflict, conflicts
from imds_proxy.intercept.libnftables import Nftables, NftError
from imds_proxy.intercept.nftables import refused
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.intercept.report import SENTENCES
from imds_proxy.server.intercepting import METHODS, services_of

# In a fresh network namespace: whole tables, forwarded traffic and refusals included.
_TRIAL = """
import ctypes, os
from imds_proxy.config_values import Address
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.redirect import InterceptError, Plan
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    raise SystemExit("unshare: " + os.strerror(ctypes.get_errno()))
services = Address("100.100.100.200", 80), Address("fd00:100::100:200", 80)
listeners = Address("169.254.100.200", 200), Address("fd64:64c8::200", 200)
redirect = NftablesRedirect(Plan(services, listeners, mark=200, forwarded=("*",)))
try:
    redirect.up()
except InterceptError as error:
    raise SystemExit(str(error))
status = redirect.status()
print(status.held_by, *status.notes)
redirect.down()
closed = NftablesRedirect(Plan(services, listeners, mark=200, forwarded=("*",), closed=True))
closed.up()
closed.down()
"""
_TRIAL_SECONDS = 10


def trial(command: Sequence[str] = (sys.executable, "-c", _TRIAL)) -> Finding:
    """Whether the kernel takes a redirect by nftables, and what would keep it in force."""
    slug = "redirect-trial"
    try:
        done = subprocess.run(  # noqa: S603  (no shell, our own words)
            command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(slug, "unknown", f"a redirect cannot be tried: {error}")
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:] or ["nothing"]
    if done.returncode != 0 and said[0].startswith("unshare"):
        return Finding(slug, "unknown", f"a redirect cannot be tried: {said[0]}", "run the doctor as root")
    if done.returncode != 0:
        return Finding(slug, "bad", f"the kernel takes no redirect by nftables: {said[0]}", "see its remedy")
    if said[0].startswith("owner-table"):
        return Finding(slug, "ok", "nftables takes a redirect that ends with its maker")
    note = said[0].partition(" ")[2]
    return Finding(slug, "warn", f"a redirect by nftables rests on its 2 s lease: {note}")


def standing(config: Config) -> Finding:
    """What redirect is in force in this network namespace now."""
    report = alone.report(config.intercept, services_of(config), METHODS)
    sentence = SENTENCES[report.state] + "".join(f" ({note})" for note in report.notes[:1])
    state = {"in-force": "ok", "off": "ok", "unknown": "unknown"}.get(report.state, "warn")
    remedy = "imds-proxy intercept status says more" if state == "warn" else None
    return Finding("redirect", state, sentence, remedy)  # type: ignore[arg-type]


def addresses(intercept: Intercept) -> Finding:
    """Whether the addresses at which redirected calls arrive are free, or ours."""
    slug = "intercept-address"
    for address in intercept.address:
        try:
            found = holder(address.host)
        except OSError as error:
            return Finding(slug, "unknown", f"addresses cannot be listed: {error.strerror}")
        if found is not None and found.interface != "lo":
            sentence = f"{address.host} is an address of {found.interface}"
            return Finding(slug, "bad", sentence, "set intercept.address to one that is free")
    if any(":" in address.host for address in intercept.address) and _ipv6_is_off():
        sentence = "IPv6 is off on lo: calls to the service by IPv6 would not be redirected"
        return Finding(slug, "warn", sentence, "sysctl net.ipv6.conf.lo.disable_ipv6=0")
    shown = " and ".join(str(address) for address in intercept.address)
    return Finding(slug, "ok", f"{shown} can take redirected calls")


def others(services: Sequence[Address], proc: Path) -> list[Finding]:
    """Rules of other tools that send calls to the service elsewhere, or refuse them to some."""
    slug = "other-rules"
    findings = []
    try:
        nft = Nftables()
        try:
            found = conflicts(json.loads(nft.run("list ruleset", as_json=True)), services)
        finally:
            nft.close()
    except (InterceptError, NftError, ValueError) as error:
        why = refused(error) if isinstance(error, NftError) else error
        findings.append(Finding(slug, "unknown", f"the rules of other tools cannot be read: {why}"))
    else:
        findings += [_finding(conflict) for conflict in found]
    findings += _legacy(services, proc)
    return findings or [Finding(slug, "ok", "no rule of another tool concerns calls to the service")]


def coverage(config: Config, proc: Path, hosts: Path) -> list[Finding]:
    """Ways to the service that a redirect does not cover: other ports, other addresses, other names."""
    slug = "coverage"
    services = services_of(config)
    shown = " and ".join(str(service) for service in services)
    findings = [Finding(slug, "ok", f"a redirect covers {shown}, however they are spelled or resolved")]
    known = {service.host for service in services}
    for end in sorted({str(row.remote) for row in tcp_sockets(proc) if row.remote.host in known}):
        if end not in {str(service) for service in services}:
            sentence = f"a connection to {end} is open: a redirect does not cover that port"
            findings.append(Finding(slug, "warn", sentence, "ask whoever runs its program why"))
    if config.upstream.address not in services:
        sentence = (
            f"upstream.address is {config.upstream.address}: calls made to it directly are not redirected"
        )
        findings.append(Finding(slug, "warn", sentence, f"callers are to use {services[0].host}"))
    for name in _names(hosts, known):
        sentence = f"{name} is the service by {hosts}: its calls are redirected, and refused for their Host"
        findings.append(Finding(slug, "warn", sentence, f"add {name} to hosts"))
    return findings


def _finding(conflict: Conflict) -> Finding:
    if conflict.effect == "translates":
        return Finding("other-rules", "bad", str(conflict), f"nft list table {conflict.table}")
    return Finding("other-rules", "warn", str(conflict), "imds-proxy policy explain shows what they say")


def _legacy(services: Sequence[Address], proc: Path) -> list[Finding]:
    """The tables of iptables-legacy, which are not nftables'."""
    findings = []
    for name, program in (
        ("ip_tables_names", "iptables-legacy-save"),
        ("ip6_tables_names", "ip6tables-legacy-save"),
    ):
        try:
            if not (proc / "net" / name).read_text(encoding="ascii").strip():
                continue
        except OSError:
            continue
        path = find_program(program)
        rules = ask_program(path)[1] if path is not None else None
        if rules is None:
            sentence = f"there are tables of iptables-legacy, and no {program} to read them"
            findings.append(Finding("other-rules", "unknown", sentence, f"install it: {program}"))
        elif any(service.host in rules for service in services):
            sentence = f"rules of iptables-legacy name the service: {program}"
            findings.append(Finding("other-rules", "warn", sentence, "a redirect goes past its filters"))
    return findings


def _names(hosts: Path, known: set[str]) -> list[str]:
    try:
        lines = hosts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.partition("#")[0].split() for line in lines]
    return sorted({name for line in words if line and line[0] in known for name in line[1:]})


def _ipv6_is_off() -> bool:
    try:
        text = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text(encoding="ascii")
    except OSError:
        return True
    return text.strip() != "0"
