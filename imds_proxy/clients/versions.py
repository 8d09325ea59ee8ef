"""Versions of packages in one order, for the many ways in which ecosystems write them. Pure.

Knows no ecosystem's full grammar: what it cannot read is no version, and is compared with nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

_MAX = 64
_VERSION = re.compile(r"(?:[0-9]{1,4}:)?v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})(.*)", re.S)
_SAFE = re.compile(r"[0-9A-Za-z.+~:_-]*")
# `1.0-rc.1`, `1.0b2`, `1.0~rc1` and Go's `v0.0.0-20230411…` come before the release; `-1ubuntu2`, `+deb12u4`,
# `.post1` and Alibaba's build names (`-884df97-aliyun`) after it.
_BEFORE = re.compile(r"~|[-._]?(?:a|alpha|b|beta|c|rc|dev|pre|preview|snapshot)(?![a-z])", re.I)
_PSEUDO = re.compile(r"-(?:0\.)?[0-9]{14}-[0-9a-f]{12}")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """`text` as it was written; order is by numbers, a pre-release before its release. What stands after
    the numbers beyond that is not compared: two builds of one release are equal."""

    text: str
    numbers: tuple[int, ...]
    released: bool

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """None for what is no version, is too long (64 characters), or has characters that none has."""
        match = _VERSION.fullmatch(text) if len(text) <= _MAX else None
        if match is None or not _SAFE.fullmatch(match[2]):
            return None
        numbers = tuple(int(part) for part in match[1].split("."))
        while numbers and numbers[-1] == 0:
            numbers = numbers[:-1]
        before = _BEFORE.match(match[2]) or _PSEUDO.match(match[2])
        return cls(text, numbers, before is None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __str__(self) -> str:
        return self.text

    @property
    def _key(self) -> tuple[tuple[int, ...], bool]:
        return self.numbers, self.released
