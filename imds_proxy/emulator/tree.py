"""The tree of items: look-up, listings, the JSON of everything. Knows no HTTP, token, clock or setting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote_to_bytes

Leaf = bytes | Callable[[str], bytes]
"""A value, or what makes one of the request's query (empty if there is none)."""

VERSIONS = ("2016-01-01", "latest")
_RAM = re.compile(r"(?i)(?<=^meta-data/)ram(?=/|$)")
_SLASHES = re.compile(r"/{2,}")


def locate(path: str) -> str | None:
    """The path below a version, `""` for a version itself, `"/"` for the root, None outside every version.

    Runs of slashes count as one, percent-encoding is undone once, and the segment `ram` has no case (old
    vendor documents write `Ram`). A trailing slash stays. Dot segments are plain names here: not found.
    """
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if path == "/":
        return "/"
    for version in VERSIONS:
        if path.startswith(version, 1) and path[0] == "/":
            rest = path[1 + len(version) :]
            if not rest:
                return ""
            if rest[0] == "/":
                return _RAM.sub("ram", rest[1:])
    return None


class Tree:
    """Leaf items under one version, and the listings that follow from them."""

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        self._leaves = dict(leaves)
        self._listings = _listings(self._leaves)

    def look_up(self, place: str, query: str = "") -> bytes | None:
        """The body at a place that `locate` gave, None if nothing is there.

        A directory answers with and without its trailing slash; a leaf with one is not found.
        """
        leaf = self._leaves.get(place)
        if leaf is None:
            if place == "/":
                return "\n".join(VERSIONS).encode()
            return self._listings.get(place.removesuffix("/"))
        return leaf if isinstance(leaf, bytes) else leaf(query)

    def as_json(self, directory: str, without: str) -> bytes:
        """A directory as one JSON object: directories nest, values are text, a leaf that is a JSON object
        (credentials) nests too. The leaf `without` (the caller's own) is left out."""
        root: dict[str, object] = {}
        prefix = f"{directory}/"
        for path, leaf in sorted(self._leaves.items()):
            if not path.startswith(prefix) or path == without:
                continue
            *parents, name = path[len(prefix) :].split("/")
            node = root
            for parent in parents:
                child = node.setdefault(parent, {})
                assert isinstance(child, dict)
                node = child
            node[name] = _json_value(leaf if isinstance(leaf, bytes) else leaf(""))
        return json.dumps(root, indent=2, ensure_ascii=False).encode()


def _json_value(value: bytes) -> object:
    text = value.decode("utf-8", "replace")
    return json.loads(text) if text.startswith(" {") else text


def _listings(leaves: Mapping[str, Leaf]) -> dict[str, bytes]:
    """Directory (no slash at its end) to its names, one a line, no LF after the last."""
    names: dict[str, set[str]] = {"": set()}
    for path in leaves:
        parent, _, name = path.rpartition("/")
        names.setdefault(parent, set()).add(name)
        while parent:
            parent, _, name = parent.rpartition("/")
            names.setdefault(parent, set()).add(f"{name}/")
    return {directory: "\n".join(sorted(entries)).encode() for directory, entries in names.items()}
