"""Checks of the machine itself: interpreter, kernel, privileges, cgroups, namespaces, systemd, disk.

Knows nothing of the network or the cloud.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

from imds_proxy.doctor.finding import Finding
from imds_proxy.doctor.programs import ask_program

# Bits of linux/capability.h, and what each is for.
_CAPABILITIES = {
    "NET_ADMIN": (12, "the redirect"),
    "NET_BIND_SERVICE": (10, "ports below 1024"),
    "SYS_PTRACE": (19, "naming the programs of other users"),
    "DAC_READ_SEARCH": (2, "naming the programs of other users"),
}
_OWNER_TABLES_SINCE = (5, 12)

# Runs in a child: a user and a network namespace, and an act in it that needs its capabilities (some
# kernels allow the first and refuse the second). CLONE_NEWUSER | CLONE_NEWNET; SIOCSIFFLAGS, IFF_UP.
_NAMESPACE_TRIAL = """
import ctypes, fcntl, os, socket, struct
uid, gid = os.geteuid(), os.getegid()
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x40000000):
    raise SystemExit("unshare: " + os.strerror(ctypes.get_errno()))
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))
"""


def python() -> Finding:
    """The interpreter's version; an older one than 3.10 could not have read this file."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok", f"Python {version} ({sys.executable})")


def uvloop() -> Finding:
    """Whether the fast event loop is there."""
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        sentence = "uvloop is not installed: asyncio's own, slower event loop is used"
        return Finding("uvloop", "warn", sentence, "pip install uvloop")
    return Finding("uvloop", "ok", f"uvloop {getattr(module, '__version__', 'unknown')}")


def kernel(release: str) -> tuple[Finding, Finding]:
    """The kernel, and whether it removes the redirect when the proxy dies. `release` is `uname -r`."""
    named = Finding("kernel", "ok", f"Linux {release}")
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release)
    if match is None:
        return named, Finding("owner-tables", "unknown", f"the kernel's version {release!r} is unreadable")
    if (int(match[1]), int(match[2])) >= _OWNER_TABLES_SINCE:
        sentence = "nftables owner tables are supported: a redirect ends with its maker"
        return named, Finding("owner-tables", "ok", sentence)
    sentence = "no nftables owner tables before Linux 5.12"
    return named, Finding("owner-tables", "warn", sentence, "a redirect will rest on its 2 s timeout alone")


def privileges(status: str) -> tuple[Finding, Finding]:
    """Who runs this and what it may do. `status` is the text of /proc/self/status."""
    uid = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    effective = re.search(r"^CapEff:\s+([0-9a-fA-F]+)", status, re.MULTILINE)
    if uid is None or effective is None:
        unreadable = "/proc/self/status does not say"
        return Finding("user", "unknown", unreadable), Finding("capabilities", "unknown", unreadable)
    user = Finding("user", "ok", f"runs as uid {uid[1]}")
    bits = int(effective[1], 16)
    missing = [name for name, (bit, _) in _CAPABILITIES.items() if not bits >> bit & 1]
    if not missing:
        return user, Finding("capabilities", "ok", f"has {', '.join(_CAPABILITIES)}")
    reasons = "; ".join(f"{name} ({_CAPABILITIES[name][1]})" for name in missing)
    remedy = "give the daemon these with AmbientCapabilities= in its unit, or run it as root"
    return user, Finding("capabilities", "warn", f"without {reasons}", remedy)


def cgroups(mount: Path) -> Finding:
    """Which cgroup hierarchy names the callers. `mount` is /sys/fs/cgroup."""
    if (mount / "cgroup.controllers").exists():
        return Finding("cgroups", "ok", "cgroup v2: the kernel names a caller's unit and container")
    by_process = "units and containers come from /proc/PID/cgroup"
    if (mount / "unified" / "cgroup.controllers").exists():
        return Finding("cgroups", "warn", f"cgroup v1 and v2 (hybrid): {by_process}")
    if mount.is_dir() and any(entry.is_dir() for entry in mount.iterdir()):
        return Finding("cgroups", "warn", f"cgroup v1: {by_process}")
    return Finding("cgroups", "unknown", f"no cgroups are mounted on {mount}")


def user_namespaces() -> Finding:
    """Whether `imds-proxy demo` can have a network of its own; really tried, in a child."""
    try:
        code, output = ask_program(sys.executable, "-I", "-c", _NAMESPACE_TRIAL)
    except OSError as error:
        return Finding("user-namespaces", "unknown", f"not tried: {error.strerror}")
    if code == 0:
        return Finding("user-namespaces", "ok", "user and network namespaces work: the demo has its own")
    reason = output.splitlines()[-1] if output else f"exit code {code}"
    return Finding(
        "user-namespaces",
        "warn",
        f"user and network namespaces do not work here ({reason[:120]})",
        "the demo uses loopback ports; to allow them see kernel.unprivileged_userns_clone, "
        "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns",
    )


def systemd(run: Path) -> Finding:
    """Whether systemd is the init system. `run` is /run."""
    if (run / "systemd" / "system").is_dir():
        return Finding("systemd", "ok", "systemd runs: a crashed daemon is started again")
    sentence = "systemd does not run here"
    return Finding("systemd", "warn", sentence, "let something else restart the daemon")


def state_directory(state: Path) -> Finding:
    """Whether token hashes can be kept over a restart."""
    if state.is_dir():
        if os.access(state, os.W_OK | os.X_OK):
            return Finding("state", "ok", f"{state} is writable")
        remedy = f"let the daemon's user own {state}, or set `state` in the configuration"
        return Finding("state", "warn", f"{state} is not writable for this user", remedy)
    if state.exists():
        return Finding("state", "bad", f"{state} is not a directory", "set `state` in the configuration")
    parent = next((one for one in state.parents if one.exists()), Path("/"))
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Finding("state", "ok", f"{state} does not exist yet and can be made")
    remedy = "make it for the daemon's user (StateDirectory= does), or set `state` in the configuration"
    return Finding("state", "warn", f"{state} does not exist and this user cannot make it", remedy)
