"""Node packages that a process can require, by the `package.json` of each in its `node_modules`.

Follows Node's own way: upwards from the script and the working directory, then NODE_PATH; also into the
packages that bring a copy of their own, and pnpm's store. Knows no particular package.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence

from imds_proxy.clients.evidence import Found, shown
from imds_proxy.clients.rooted import Rooted
from imds_proxy.clients.versions import Version

_MAX_DEPTH = 32  # directories upwards
_MAX_PACKAGES = 1500  # looked into for copies of their own
_PACKAGE_JSON = 1 << 18


def node_packages(
    rooted: Rooted, starts: Sequence[str], node_path: Sequence[str], names: frozenset[str]
) -> Iterator[Found]:
    """The packages among `names`: the one that would be found first, then other copies that differ in
    version. `starts` are absolute directories. Raises Exhausted."""
    seen: set[tuple[str, str | None]] = set()
    for modules in _module_directories(starts, node_path):
        for found in _below(rooted, modules, names):
            if (found.name, found.version) not in seen:
                seen.add((found.name, found.version))
                yield found


def _module_directories(starts: Sequence[str], node_path: Sequence[str]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for start in starts:
        directory = posixpath.normpath(start)
        for _ in range(_MAX_DEPTH):
            if posixpath.basename(directory) != "node_modules":
                seen[posixpath.join(directory, "node_modules")] = None
            if directory == "/":
                break
            directory = posixpath.dirname(directory)
    seen.update((path, None) for path in node_path if path.startswith("/"))
    yield from seen


def _below(rooted: Rooted, modules: str, names: frozenset[str]) -> Iterator[Found]:
    if not rooted.is_directory(modules):
        return
    for name in sorted(names):
        if found := _package(rooted, modules, name):
            yield found
    for inner in _copies(rooted, modules):
        for name in sorted(names):
            if found := _package(rooted, inner, name):
                yield found


def _copies(rooted: Rooted, modules: str) -> Iterator[str]:
    """`node_modules` of the packages themselves, and of pnpm's store."""
    left = _MAX_PACKAGES
    for place in (modules, f"{modules}/.pnpm"):
        for entry in sorted(rooted.names(place)):
            scope = entry.startswith("@") and place == modules
            inner = (
                [f"{entry}/{name}" for name in sorted(rooted.names(f"{place}/{entry}"))] if scope else [entry]
            )
            for package in inner:
                left -= 1
                if left < 0:
                    return
                if not package.startswith("."):
                    yield f"{place}/{package}/node_modules"


def _package(rooted: Rooted, modules: str, name: str) -> Found | None:
    raw = rooted.read(f"{modules}/{name}/package.json", _PACKAGE_JSON)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("name") != name:
        return None
    version = document.get("version")
    known = isinstance(version, str) and Version.parse(version) is not None
    return Found("npm", name, version if known else None, shown(posixpath.dirname(modules) or "/"))
