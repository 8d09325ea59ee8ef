"""What a container runtime wrote down of a container: its name and image, from the runtime's own files.

No runtime is asked: its socket is root's, and it may hang. The files are root's too, in the host's root.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cachetools import TTLCache

_ID = re.compile(r"[0-9a-f]{64}")  # one that no user could have made up (see `cgroups`)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LARGEST = 4 * 1024 * 1024  # bytes
_DOCKER = "var/lib/docker/containers"
# Podman and CRI-O; what is removed when it ends (--rm) is on a file system that ends too.
_STORAGES = (
    "var/lib/containers/storage/{}-containers/containers.json",
    "run/containers/storage/{}-containers/volatile-containers.json",
)
_DRIVERS = ("overlay", "vfs", "btrfs", "zfs")
_TASKS = "run/containerd/io.containerd.runtime.v2.task"  # then the namespace
_NAMESPACES = ("k8s.io", "default", "moby")
_NAME_OF_CRI, _IMAGE_OF_CRI = "io.kubernetes.cri.container-name", "io.kubernetes.cri.image-name"

Named = tuple[str | None, str | None]
"""Name and image."""


class ContainerRecords:
    """Reads what Docker, podman, CRI-O and containerd keep below `root`, the host's root directory."""

    def __init__(self, root: str = "/proc/1/root") -> None:
        self._root = Path(root)
        self._known: TTLCache[str, Named] = TTLCache(1024, ttl=60)

    def of(self, container: str) -> Named:
        """Name and image of a container by its id; None for what no runtime tells. Reads files: up to some
        milliseconds for one that was not asked for within a minute."""
        if not _ID.fullmatch(container):
            return None, None
        found = self._known.get(container)
        if found is None:
            found = next((one for one in self._read(container) if any(one)), (None, None))
            self._known[container] = found
        return found

    def _read(self, container: str) -> Iterator[Named]:
        docker = self._json(f"{_DOCKER}/{container}/config.v2.json")
        name, image = _text(docker.get("Name")), _text(_mapping(docker.get("Config")).get("Image"))
        yield name.removeprefix("/") if name else None, image
        for storage in _STORAGES:
            for driver in _DRIVERS:
                yield self._of_storage(storage.format(driver), container)
        for namespace in _NAMESPACES:
            task = self._json(f"{_TASKS}/{namespace}/{container}/config.json")
            annotations = _mapping(task.get("annotations"))
            yield _text(annotations.get(_NAME_OF_CRI)), _text(annotations.get(_IMAGE_OF_CRI))

    def _of_storage(self, path: str, container: str) -> Named:
        rows = self._json(path).get("rows")
        for row in rows if isinstance(rows, list) else ():
            if _mapping(row).get("id") == container:
                return _of_row(row)
        return None, None

    def _json(self, path: str) -> Mapping[str, Any]:
        """An object; a list as its `rows`; an empty one for whatever is not there or not readable."""
        try:
            descriptor = os.open(
                self._root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
            with os.fdopen(descriptor, "rb") as file:
                found = json.loads(file.read(_LARGEST))
        except (OSError, ValueError, RecursionError):
            return {}
        return {"rows": found} if isinstance(found, list) else _mapping(found)


def _of_row(row: Mapping[str, Any]) -> Named:
    try:
        metadata = _mapping(json.loads(row.get("metadata") or "{}"))
    except (ValueError, TypeError, RecursionError):
        metadata = {}
    names = row.get("names")
    first = names[0] if isinstance(names, list) and names else None
    # CRI-O's own name has the pod's in it; the container's stands in its metadata.
    name = (
        _text(_mapping(metadata.get("metadata")).get("name")) or _text(first) or _text(metadata.get("name"))
    )
    return name, _text(metadata.get("image-name"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
