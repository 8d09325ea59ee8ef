"""The first process of a test machine: lays its file system, then becomes systemd.

A program, run in new cgroup, pid, mount, network and uts namespaces: `machine_boot.py SCRATCH PLAN`, where
PLAN is the JSON of `machine.Plan` and SCRATCH an empty directory.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

_UNITS = "/machine/units"  # before those of the distribution
_EMPTY = "[Unit]\nDefaultDependencies=no\n"
# What the distribution's own would pull in has no place on a machine without devices, disks and logins.
_TARGETS = {
    "sysinit.target": f"{_EMPTY}Wants=systemd-journald.service\nAfter=systemd-journald.service\n",
    "basic.target": f"{_EMPTY}Requires=sysinit.target\nAfter=sysinit.target\n",
    "sockets.target": _EMPTY,
    "timers.target": _EMPTY,
    "network.target": _EMPTY,
    "network-pre.target": _EMPTY,
    "network-online.target": _EMPTY,
    "machine.target": f"{_EMPTY}Requires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def lay_root(scratch: Path, lower: str) -> Path:
    """A writable view of the directory `lower`; what is written goes with the machine."""
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "machine", str(scratch))
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    root = scratch / "root"
    options = f"lowerdir={lower},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
    mount("-t", "overlay", "overlay", "-o", options, str(root))
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("-t", "sysfs", "sysfs", str(root / "sys"))
    mount("-t", "cgroup2", "cgroup2", str(root / "sys/fs/cgroup"))
    mount("-t", "tmpfs", "-o", "mode=755", "run", str(root / "run"))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmp", str(root / "tmp"))
    mount("-t", "tmpfs", "-o", "mode=755", "dev", str(root / "dev"))
    for name in _DEVICES:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    for name in ("shm", "pts", "mqueue", "hugepages"):  # of which PrivateDevices= makes copies
        (root / "dev" / name).mkdir(mode=0o1777)
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", str(root / "dev/pts"))
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/console").touch()
    return root


def furnish(root: Path, plan: dict[str, dict[str, str]]) -> None:
    units = {f"{_UNITS}/{name}": text for name, text in _TARGETS.items()}
    for name, text in {**units, **plan["files"]}.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for target, source in plan["binds"].items():
        path = root / target.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        mount("--rbind", source, str(path))


def main() -> None:
    scratch, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
    root = lay_root(scratch, plan["lower"])
    furnish(root, plan)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.chdir(root)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.pivot_root(b".", b".") == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["umount", "-l", "."], check=True)
    os.chdir("/")
    environment = {
        "container": "podman",  # systemd leaves the kernel's settings alone
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SYSTEMD_UNIT_PATH": f"{_UNITS}:/etc/systemd/system:/usr/lib/systemd/system:/lib/systemd/system",
        "SYSTEMD_LOG_LEVEL": plan["log_level"],
    }
    os.execve("/lib/systemd/systemd", ["systemd", "--system", "--unit=machine.target"], environment)


if __name__ == "__main__":
    main()
