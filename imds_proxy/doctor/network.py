"""Checks of this machine's network: nftables, routes, ports, open connections, proxy variables.

Sends nothing to anybody.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imds_proxy.clients.variables import covers
from imds_proxy.config import Address
from imds_proxy.doctor.finding import Finding
from imds_proxy.doctor.programs import ask_program, find_program

_ESTABLISHED, _LISTEN = "01", "0A"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of /proc/net/tcp or tcp6."""

    local: Address
    remote: Address
    state: str
    inode: int


def nft() -> Finding:
    """Whether the nft program is installed."""
    path = find_program("nft")
    if path is None:
        remedy = "install nftables, to see and remove a redirect by hand"
        return Finding("nft", "warn", "the nft program is not installed", remedy)
    try:
        code, output = ask_program(path, "--version")
    except OSError as error:
        return Finding("nft", "warn", f"{path} does not start: {error.strerror}", "reinstall nftables")
    version = output.splitlines()[0][:80] if code == 0 and output else "of unknown version"
    return Finding("nft", "ok", f"{path}, {version}")


def libnftables(name: str = "libnftables.so.1") -> Finding:
    """Whether the library that makes the redirect in-process can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        remedy = "install libnftables1 (Debian) or nftables-libs (RPM) for `intercept`"
        return Finding("libnftables", "warn", f"{name} cannot be loaded: no redirect from here", remedy)
    return Finding("libnftables", "ok", f"{name} can be loaded")


def route(upstream: Address, *, expected: bool) -> Finding:
    """Whether there is a route to the service; a connected UDP socket asks the kernel without a packet.

    `expected` says that this machine should have one.
    """
    family = socket.AF_INET6 if ":" in upstream.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((upstream.host, upstream.port))
            source = probe.getsockname()[0]
    except OSError as error:
        remedy = f"ip route get {upstream.host}" if expected else None
        sentence = f"no route to {upstream}: {error.strerror}"
        return Finding("route", "bad" if expected else "unknown", sentence, remedy)
    return Finding("route", "ok", f"{upstream} is reached from {source}")


def listen_address(address: Address, proc: Path) -> Finding:
    """Whether the daemon could listen here now; and if not, who does. `proc` is /proc."""
    slug = "listen"
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind((address.host, address.port))
            # A bound socket may share with another bound one; only listening tells.
            trial.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder = _holder(address, proc)
            if holder is not None and "imds-proxy" in holder:
                return Finding(slug, "ok", f"{address} is held by {holder}")
            remedy = "stop it, or set `listen` in the configuration"
            return Finding(slug, "bad", f"{address} is held by {holder or 'an unknown process'}", remedy)
        remedy = {
            errno.EACCES: "give the daemon NET_BIND_SERVICE, or set `listen` to a port from 1024",
            errno.EADDRNOTAVAIL: "add the address to an interface, or set `listen` in the configuration",
        }.get(error.errno or 0, "set `listen` in the configuration")
        return Finding(slug, "bad", f"{address} cannot be listened on: {error.strerror}", remedy)
    return Finding(slug, "ok", f"{address} is free")


def open_connections(services: Sequence[Address], proc: Path) -> Finding:
    """Connections to the service that a redirect would not touch: NAT acts on new ones only."""
    slug = "open-connections"
    rows = _rows(proc)
    if rows is None:
        return Finding(slug, "unknown", f"{proc}/net/tcp cannot be read")
    count = sum(1 for row in rows if row.state == _ESTABLISHED and row.remote in services)
    if count == 0:
        return Finding(slug, "ok", "no connection to the service is open")
    remedy = "a redirect leaves them alone; restart their programs after it is up"
    return Finding(slug, "warn", f"{count} connections to the service are open already", remedy)


def proxy_variables(environment: Mapping[str, str], service: str) -> Finding:
    """http_proxy without an exception for the service sends metadata calls, and their tokens, elsewhere."""
    slug = "http-proxy"
    # Values may hold a password: only names are shown.
    names = [name for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if environment.get(name)]
    if not names:
        return Finding(slug, "ok", "no proxy variable is set in this environment")
    exceptions = [environment[name] for name in ("no_proxy", "NO_PROXY") if environment.get(name)]
    shown = ", ".join(names)
    # Programs differ in which of the two they read: each that is set must cover the service.
    if exceptions and all(covers(text, service) for text in exceptions):
        return Finding(slug, "ok", f"{shown} is set, and NO_PROXY covers {service}")
    sentence = f"{shown} is set and NO_PROXY does not cover {service}: calls may go to that proxy instead"
    return Finding(slug, "warn", sentence, f"add {service} to NO_PROXY and no_proxy, for every program")


def tcp_sockets(proc: Path) -> list[Row]:
    """All TCP sockets of this network namespace; none where they cannot be read."""
    return _rows(proc) or []


def _rows(proc: Path) -> list[Row] | None:
    """All TCP sockets of this network namespace; None where neither table can be read."""
    rows: list[Row] = []
    found = False
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        found = True
        for line in lines:
            columns = line.split()
            if len(columns) > 9:
                local, remote = _address(columns[1]), _address(columns[2])
                rows.append(Row(local, remote, columns[3], int(columns[9])))
    return rows if found else None


def _address(column: str) -> Address:
    """`0100007F:1FA4`: words of the address in the machine's byte order, the port in hex."""
    words, _, port = column.partition(":")
    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    ip = ipaddress.ip_address(raw)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Address(str(mapped or ip), int(port, 16))


def _holder(address: Address, proc: Path) -> str | None:
    """`name (pid N)` of the process that listens on the address or on a wildcard with its port."""
    wildcards = {"0.0.0.0", "::"}  # noqa: S104  (compared, not bound)
    inodes = {
        f"socket:[{row.inode}]"
        for row in _rows(proc) or []
        if row.state == _LISTEN
        and row.local.port == address.port
        and (row.local.host == address.host or wildcards & {row.local.host, address.host})
    }
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            held = any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir())
            if held:
                words = (process / "cmdline").read_bytes().split(b"\0")
                names = {Path(word.decode("utf-8", "replace")).name for word in words[:3]}
                name = (process / "comm").read_text(errors="replace").strip()
                ours = names & {"imds-proxy", "imds_proxy"}
                return f"{'imds-proxy' if ours else name} (pid {process.name})"
        except OSError:
            continue
    return None
