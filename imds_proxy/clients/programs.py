"""Programs by their executable's path, and what some of them write of their own version. Thin.

A program is never run to be asked: it may be the caller's own.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from imds_proxy.clients.catalogue import Catalogue, Tool
from imds_proxy.clients.evidence import Found, shown
from imds_proxy.clients.rooted import Rooted
from imds_proxy.clients.versions import Version

_VERSION_KEYS = ("logtail_version", "loongcollector_version", "version")
_MAX_FILE = 1 << 16


def programs(rooted: Rooted, executable: str | None, script: str | None, known: Catalogue) -> Iterator[Found]:
    """The tools that this executable, or the script it runs, is by its name."""
    for ecosystem, path in (("program", executable), ("script", script)):
        if path is None:
            continue
        for glob in sorted(known.names(ecosystem)):
            if fnmatchcase(path if glob.startswith("/") else posixpath.basename(path), glob):
                for tool in known.found_as(ecosystem, glob):
                    yield Found(ecosystem, glob, _version(rooted, path, tool), shown(path))


def image_version(image: str, known: Catalogue) -> Iterator[Found]:
    """The tools that a container image is, by the end of its name; its tag is the version."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    if not name or "/" in tag:
        name, tag = image.partition("@")[0], ""
    for end in sorted(known.names("image")):
        if name == end or name.endswith(f"/{end}"):
            yield Found("image", end, tag if Version.parse(tag) else None, shown(image))


def _version(rooted: Rooted, path: str, tool: Tool) -> str | None:
    if tool.find.versioned_directory:
        found = re.findall(r"/([0-9]{1,9}(?:\.[0-9]{1,9}){1,4})(?=/)", path)
        return found[-1] if found else None
    for name in tool.find.file:
        try:
            document = json.loads(rooted.read(name, _MAX_FILE) or b"")
        except (ValueError, RecursionError):
            continue
        for key in _VERSION_KEYS if isinstance(document, dict) else ():
            text = document.get(key)
            if isinstance(text, str) and Version.parse(text):
                return text
    return None
