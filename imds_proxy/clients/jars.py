"""Java libraries in the archives that a process has open: by `pom.properties`, also inside shaded and nested
archives, then by the manifest and the file's name.

An archive is hostile until proven otherwise: its directory, each entry and all together are bounded. Knows
no particular library.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from imds_proxy.clients.evidence import Found, shown
from imds_proxy.clients.rooted import Budget, read_at
from imds_proxy.clients.versions import Version

_MAX_DIRECTORY = 4 << 20  # bytes of an archive's directory: some 40,000 entries
_MAX_NESTED = 16 << 20  # bytes of an archive in an archive
_MAX_NESTED_ARCHIVES = 64
_SMALL = 1 << 14
_POM = re.compile(r"META-INF/maven/([^/]{1,128})/([^/]{1,128})/pom\.properties")
_NAME = re.compile(r"(.+?)-([0-9][0-9A-Za-z.+_-]*)\.jar")
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError)


class _Bounded(io.RawIOBase):
    """A file that reads within a budget, and never more at once than an archive's directory may be."""

    def __init__(self, descriptor: int, size: int, budget: Budget) -> None:
        self._descriptor, self._size, self._budget, self._at = descriptor, size, budget, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._at if size < 0 else size
        if wanted > _MAX_DIRECTORY:
            raise ValueError("too much at once")
        data = read_at(self._descriptor, self._at, max(0, wanted), self._budget)
        if data is None:
            raise OSError("unreadable")
        self._at += len(data)
        return data


def libraries(
    descriptor: int, size: int, path: str, names: frozenset[str], budget: Budget
) -> Iterator[Found]:
    """The libraries among `names` (`group:artifact`) in the open archive of that size. Raises Exhausted."""
    for name, version in _in_archive(_Bounded(descriptor, size, budget), path, names, budget, nested=False):  # type: ignore[arg-type]
        yield Found("maven", name, version if version and Version.parse(version) else None, shown(path))


def _in_archive(
    file: BinaryIO, path: str, names: frozenset[str], budget: Budget, *, nested: bool
) -> Iterator[tuple[str, str | None]]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield from _entries(archive, path, names, budget, nested=nested)
    except _BROKEN:
        return


def _entries(
    archive: zipfile.ZipFile, path: str, names: frozenset[str], budget: Budget, *, nested: bool
) -> Iterator[tuple[str, str | None]]:
    found: set[str] = set()
    inner = []
    for entry in archive.infolist():
        match = _POM.fullmatch(entry.filename)
        if match and (name := f"{match[1]}:{match[2]}") in names:
            found.add(name)
            yield name, _property(_content(archive, entry, _SMALL, budget), rb"version")
        elif entry.filename.endswith(".jar"):
            inner.append(entry)
    whole = _by_file_name(path, names)
    if whole is not None and whole[0] not in found:
        manifest = archive.NameToInfo.get("META-INF/MANIFEST.MF")
        text = _content(archive, manifest, _SMALL, budget) if manifest else b""
        yield whole[0], whole[1] or _property(text, rb"Implementation-Version")
    artifacts = {one.partition(":")[2] for one in names}
    for entry in [] if nested else inner:
        # The name tells which of a fat jar's hundreds are worth to be unpacked.
        match = _NAME.fullmatch(posixpath.basename(entry.filename))
        if match is None or match[1] not in artifacts or entry.file_size > _MAX_NESTED:
            continue
        content = _content(archive, entry, _MAX_NESTED, budget)
        before = len(found)
        for one in _in_archive(io.BytesIO(content), entry.filename, names, budget, nested=True):
            if one[0] not in found:
                found.add(one[0])
                yield one
        if len(found) - before > _MAX_NESTED_ARCHIVES:
            return


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int, budget: Budget) -> bytes:
    """The beginning of an entry; what it unpacks to counts, not what it says of itself."""
    pieces, left = [], limit
    try:
        with archive.open(entry) as file:
            while left > 0 and (piece := file.read(min(left, 1 << 16))):
                budget.bytes(len(piece))
                pieces.append(piece)
                left -= len(piece)
    except _BROKEN:
        return b""
    return b"".join(pieces)


def _property(text: bytes, key: bytes) -> str | None:
    match = re.search(rb"^" + key + rb"\s*[=:]\s*(\S{1,64})\s*$", text, re.M)
    return match[1].decode("ascii", "replace") if match else None


def _by_file_name(path: str, names: frozenset[str]) -> tuple[str, str | None] | None:
    base = posixpath.basename(path)
    match = _NAME.fullmatch(base)
    artifact, version = (match[1], match[2]) if match else (base.removesuffix(".jar"), None)
    whole = [name for name in names if name.partition(":")[2] == artifact]
    return (whole[0], version) if len(whole) == 1 else None
