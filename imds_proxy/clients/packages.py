"""Versions by a system's package database: dpkg's and apk's, which are text. Pure but for reading them.

Knows no particular package. What only rpm knows stays unknown: its database is a binary of which a container
could make anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from imds_proxy.clients.evidence import Found
from imds_proxy.clients.rooted import Rooted
from imds_proxy.clients.versions import Version

_DPKG, _DPKG_PARTS, _APK = "/var/lib/dpkg/status", "/var/lib/dpkg/status.d", "/lib/apk/db/installed"
_MAX = 16 << 20  # bytes
_MAX_PARTS = 64
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
