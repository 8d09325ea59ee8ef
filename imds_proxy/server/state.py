"""What the daemon keeps on disk: hashes of tokens that it gave, and the secret behind sealed ones.

Never a token. A directory that cannot be written is said once and lived without.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from imds_proxy.policy.caller import Identity
from imds_proxy.policy.tokenbook import Grant

_SCHEMA = 1
SECRET_BYTES = 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
_MAX_LINES = 32768  # twice what the book of tokens holds


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class GrantFile:
    """Token hashes with identity and promise, one JSON line each. Of this boot only: the clock of the
    promises (CLOCK_BOOTTIME) begins again with the next."""

    def __init__(self, directory: Path, boot: str) -> None:
        self.directory = directory
        self._path, self._boot = directory / "tokens.jsonl", boot
        self._lines = 0

    def load(self, now: float) -> list[tuple[bytes, Grant]]:
        """The grants that still hold. A torn last line, or a file of another boot, is passed over.

        Raises OSError when the file is there and cannot be read.
        """
        try:
            descriptor = os.open(self._path, _READ)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            lines = file.read().splitlines()
        if not lines or _object(lines[0]) != {"schema": _SCHEMA, "boot": self._boot}:
            return []
        grants: dict[bytes, Grant] = {}
        for line in lines[1:]:
            grant = _grant(_object(line))
            if grant is not None and grant[1].expires > now:
                grants[grant[0]] = grant[1]
        return list(grants.items())

    def rewrite(self, grants: Iterable[tuple[bytes, Grant]]) -> None:
        """Replaces the file by these grants, whole or not at all. Raises OSError."""
        temporary = self._path.with_suffix(".new")
        with os.fdopen(os.open(temporary, _REPLACE, 0o600), "w") as file:
            lines = [_line(key, grant) for key, grant in grants]
            file.write(json.dumps({"schema": _SCHEMA, "boot": self._boot}) + "\n")
            file.writelines(lines)
        temporary.replace(self._path)
        self._lines = len(lines)

    def save(
        self, changes: Iterable[tuple[bytes, Grant]], live: Callable[[], Iterable[tuple[bytes, Grant]]]
    ) -> None:
        """Adds `changes` (the last line of a hash counts); now and then writes only what is `live`.

        A promise grows with every PUT of its caller, so lines add up. Raises OSError.
        """
        lines = [_line(key, grant) for key, grant in changes]
        if self._lines + len(lines) > _MAX_LINES:
            self.rewrite(live())
            return
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW, 0o600), "a") as file:
            file.writelines(lines)
        self._lines += len(lines)


def seal_secret(directory: Path) -> bytes:
    """The machine's secret for sealed tokens, made on first use, readable by its owner only.

    Raises OSError when it can neither be read nor made, ValueError when it is not whole.
    """
    path = directory / "seal.key"
    if not path.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        with os.fdopen(os.open(temporary, _REPLACE, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        temporary.replace(path)
    with os.fdopen(os.open(path, _READ), "rb") as file:
        secret = file.read(SECRET_BYTES + 1)
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path}: not {SECRET_BYTES} bytes; remove it to make another")
    return secret


def _line(key: bytes, grant: Grant) -> str:
    who = grant.identity
    return (
        json.dumps(
            {
                "hash": key.hex(),
                "uid": who.uid,
                "unit": who.unit,
                "container": who.container,
                "origin": who.origin,
                "expires": grant.expires,
            }
        )
        + "\n"
    )


def _object(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _grant(record: dict[str, object]) -> tuple[bytes, Grant] | None:
    try:
        key = bytes.fromhex(str(record["hash"]))
        uid, expires = record["uid"], record["expires"]
    except (KeyError, ValueError):
        return None
    texts = [record.get(name) for name in ("unit", "container", "origin")]
    if len(key) != 32 or not isinstance(expires, (int, float)) or not isinstance(uid, (int, type(None))):
        return None
    if any(not isinstance(text, (str, type(None))) for text in texts):
        return None
    unit, container, origin = (None if text is None else str(text) for text in texts)
    return key, Grant(Identity(uid, unit, container, origin), float(expires))
