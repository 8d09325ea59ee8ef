"""Programs of this machine that call the service before the proxy is there, or beside it: cloud-init and
the provider's agent, with their versions by what lies on disk. Nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imds_proxy.ledger.entries import Installed

# The provider's guide: the first that an instance with HttpTokens=required may have.
CLOUD_INIT = (23, 2, 2)
# Linux 2.2.3.857 and ARM 2.4.3.857: the second number is the platform.
AGENT = (2, 3, 857)

_MODULES = ("usr/lib/python*/*-packages", "usr/local/lib/python*/*-packages", "usr/lib/cloud-init")
_PROGRAMS = ("usr/bin/cloud-init", "usr/local/bin/cloud-init")
_AGENT_HOME = "usr/local/share/aliyun-assist"
_VERSION = re.compile(r"__VERSION__\s*=\s*[\"']([0-9][0-9.]{0,30})")
_FOUR = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){3}")
_LARGEST = 65_536  # bytes


def installed(now: float, root: Path = Path("/")) -> Iterator[Installed]:
    """What is there and what is not, as the ledger keeps it. `now` in Unix seconds; may take milliseconds."""
    yield _cloud_init(now, root)
    yield _agent(now, root)


def numbers(version: str) -> tuple[int, ...]:
    """`23.2.2` as (23, 2, 2)."""
    return tuple(int(part) for part in version.split(".") if part)


def _cloud_init(now: float, root: Path) -> Installed:
    found: list[tuple[tuple[int, ...], str, Path]] = []
    for folder in _MODULES:
        for path in root.glob(f"{folder}/cloudinit/version.py"):
            with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
                match = _VERSION.search(file.read(_LARGEST))
                if match is not None:
                    found.append((numbers(match[1]), match[1], path))
    if found:
        # Which of several runs at boot is not known: the oldest is what may fail.
        version, text, path = min(found)
        advice = None
        if version < CLOUD_INIT:
            advice = f"cloud-init {text}: upgrade to 23.2.2 or newer; it calls before the proxy runs"
        return Installed("cloud-init", text, str(path), now, advice)
    program = next((path for name in _PROGRAMS if (path := root / name).exists()), None)
    return Installed("cloud-init", None, None if program is None else str(program), now)


def _agent(now: float, root: Path) -> Installed:
    name, home = "Cloud Assistant", root / _AGENT_HOME
    versions: list[tuple[int, ...]] = []
    with suppress(OSError):
        versions = [numbers(one.name) for one in home.iterdir() if _FOUR.fullmatch(one.name)]
    if not versions:
        return Installed(name, None, str(home) if home.is_dir() else None, now)
    newest = max(versions)
    shown, advice = ".".join(map(str, newest)), None
    if (newest[0], newest[2], newest[3]) < AGENT:
        advice = f"Cloud Assistant {shown}: upgrade to 2.2.3.857 (ARM: 2.4.3.857) or newer"
    return Installed(name, shown, str(home / shown), now, advice)
