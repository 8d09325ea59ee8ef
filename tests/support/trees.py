"""Files as a process might have them in its root: Python distributions, Node packages, jars."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imds_proxy.clients.rooted import Budget, Rooted


@contextmanager
def rooted(root: Path, **budget: float) -> Iterator[Rooted]:
    """A reader below `root`."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Rooted(descriptor, Budget(**budget))  # type: ignore[arg-type]
    finally:
        os.close(descriptor)


def write(root: Path, path: str, content: str | bytes = "") -> Path:
    """A file below `root`; `path` is absolute there."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def distribution(root: Path, site: str, name: str, version: str, kind: str = "dist-info") -> None:
    """An installed Python distribution."""
    file = {"dist-info": "METADATA", "egg-info": "PKG-INFO"}[kind]
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n"
    write(root, f"{site}/{name.replace('-', '_')}-{version}.{kind}/{file}", text)


def package(root: Path, directory: str, name: str, version: str) -> None:
    """A Node package in the node_modules of a directory."""
    write(
        root, f"{directory}/node_modules/{name}/package.json", json.dumps({"name": name, "version": version})
    )


def jar(path: Path, files: dict[str, str | bytes]) -> Path:
    """An archive with these entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def pom(group: str, artifact: str, version: str) -> dict[str, str | bytes]:
    """The entry that Maven leaves of a library."""
    text = f"#Created by Maven\nversion={version}\ngroupId={group}\nartifactId={artifact}\n"
    return {f"META-INF/maven/{group}/{artifact}/pom.properties": text}
