"""Versions by a system's package database: dpkg's and apk's, which are text, and this machine's own rpm.

Knows no particular package. rpm's database is a binary of which a container could make anything: only the
machine's own is asked, by the machine's own program.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence

from imds_proxy.clients.evidence import Found
from imds_proxy.clients.rooted import Rooted
from imds_proxy.clients.versions import Version

_DPKG, _DPKG_PARTS, _APK = "/var/lib/dpkg/status", "/var/lib/dpkg/status.d", "/lib/apk/db/installed"
_MAX = 16 << 20  # bytes
_MAX_PARTS = 64
_RPM, _RPM_SECONDS = "/usr/bin/rpm", 3.0
_NAME_WITHIN = 512  # bytes of a paragraph in which its name stands


def system_packages(rooted: Rooted, names: Iterable[str]) -> Iterator[Found]:
    """The installed ones among `names`, with the package manager that says so as the place."""
    wanted = frozenset(names)
    if not wanted:
        return
    yield from _found(dpkg_versions(rooted.read(_DPKG, _MAX) or b"", wanted), "dpkg")
    for name in sorted(wanted & frozenset(rooted.names(_DPKG_PARTS)))[:_MAX_PARTS]:  # images without dpkg
        stanza = (rooted.read(f"{_DPKG_PARTS}/{name}", 1 << 16) or b"").strip()
        yield from _found(dpkg_versions(stanza + b"\nStatus: install ok installed", wanted), "dpkg")
    yield from _found(apk_versions(rooted.read(_APK, _MAX) or b"", wanted), "apk")


def machine_rpms(root: int, names: Iterable[str], command: Sequence[str] = (_RPM,)) -> Iterator[Found]:
    """The installed ones among `names` of this machine's own system, which the directory `root` has to be:
    nothing in another root is run, or asked for."""
    wanted = sorted(names)
    ours, theirs = os.stat("/"), os.fstat(root)  # noqa: PTH116
    if not wanted or (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        return
    words = [*command, "-q", "--queryformat", r"%{NAME} %{VERSION}-%{RELEASE}\n", "--", *wanted]
    try:
        done = subprocess.run(  # noqa: S603  (fixed words, and names of the catalogue)
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            timeout=_RPM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    lines = (line.split(" ") for line in done.stdout.decode("utf-8", "replace").splitlines())
    yield from _found({line[0]: line[1] for line in lines if len(line) == 2 and line[0] in wanted}, "rpm")


def dpkg_versions(status: bytes, names: frozenset[str]) -> dict[str, str]:
    """Versions of those that are installed, from dpkg's status file."""
    stanzas = _stanzas(status, "Package: ", names)
    return {
        fields["Package"]: fields.get("Version", "")
        for fields in (dict(re.findall(r"^(Package|Status|Version): (.*)$", one, re.M)) for one in stanzas)
        if fields.get("Status", "").endswith(" installed")
    }


def apk_versions(installed: bytes, names: frozenset[str]) -> dict[str, str]:
    """Versions from apk's database."""
    stanzas = _stanzas(installed, "P:", names)
    each = (dict(re.findall(r"^([PV]):(.*)$", one, re.M)) for one in stanzas)
    return {fields["P"]: fields.get("V", "") for fields in each}


def _stanzas(database: bytes, key: str, names: frozenset[str]) -> Iterator[str]:
    """The paragraphs of these packages. Only they are decoded: a database has megabytes."""
    wanted = {f"{key}{name}".encode() for name in names}
    for stanza in database.split(b"\n\n"):
        if wanted.intersection(stanza[:_NAME_WITHIN].split(b"\n")):
            yield stanza.decode("utf-8", "replace")


def _found(versions: dict[str, str], manager: str) -> Iterator[Found]:
    for name, text in versions.items():
        # The epoch and the distribution's own number say nothing of the release.
        version = re.sub(r"^[0-9]+:", "", text)
        yield Found("package", name, version if Version.parse(version) else None, manager)
