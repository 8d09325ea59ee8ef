"""Patterns over canonical paths, and the class of an item.

Pure look-ups in a profile's tables; knows nothing of caches, callers or rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from imds_proxy.protocol.profile import ItemClass, Profile
from imds_proxy.protocol.target import Target


@dataclass(frozen=True, slots=True)
class PathPattern:
    """`a/b`, `a/*/c` (one segment) or `a/**` (a itself and all below). Without regard to case."""

    text: str
    segments: tuple[str, ...]
    below: bool

    @classmethod
    @lru_cache(maxsize=256)  # a rule's patterns are read several times in a row
    def parse(cls, text: str) -> PathPattern:
        """Raises ValueError where `**` stands anywhere but at the end, or a segment is empty."""
        parts = text.strip("/").lower().split("/")
        below = parts[-1] == "**"
        fixed = tuple(parts[:-1] if below else parts)
        if "**" in fixed or "" in fixed or not fixed:
            raise ValueError(f"{text!r}: a pattern is segments, `*` for one of them, `**` only at the end")
        return cls(text, fixed, below)

    @property
    def head(self) -> tuple[str, ...]:
        """The segments that all begin with that it matches."""
        return self.segments[: self.segments.index("*")] if "*" in self.segments else self.segments

    @property
    def is_one_path(self) -> bool:
        """Whether it matches one path and no other."""
        return not self.below and "*" not in self.segments

    def matches(self, segments: Sequence[str]) -> bool:
        """Whether the whole of `segments` (lower case) matches; a prefix ends at a segment."""
        if len(segments) < len(self.segments) or (not self.below and len(segments) > len(self.segments)):
            return False
        return all(want in ("*", have) for want, have in zip(self.segments, segments, strict=False))

    def covers(self, other: PathPattern) -> bool:
        """Whether every path that `other` matches is matched here."""
        if len(other.segments) < len(self.segments) or (other.below and not self.below):
            return False
        return self.matches(other.segments)

    def meets(self, other: PathPattern, offset: int = 0) -> bool:
        """Whether some path that `other` matches is matched here from its segment `offset` on."""
        theirs = other.segments
        if len(theirs) < offset + len(self.segments) and not other.below:
            return False
        if not self.below and len(theirs) > offset + len(self.segments):
            return False
        pairs = zip(self.segments, theirs[offset:], strict=False)
        return all("*" in pair or pair[0] == pair[1] for pair in pairs)


class PatternsAnywhere:
    """Patterns that are looked for from each segment of a path on. A path may have a thousand segments, so
    that at each only the patterns are asked that begin with it."""

    __slots__ = ("_any", "_by_first", "_enough")

    def __init__(self, patterns: Iterable[PathPattern]) -> None:
        numbered = tuple(enumerate(patterns))
        self._any = tuple(one for one in numbered if one[1].segments[0] == "*")
        self._by_first = {
            first: tuple(one for one in numbered if one[1].segments[0] in ("*", first))
            for first in {pattern.segments[0] for _, pattern in numbered} - {"*"}
        }
        # Segments by which every pattern can tell.
        self._enough = max((len(pattern.segments) for _, pattern in numbered), default=0) + 1

    def find(self, segments: Sequence[str]) -> int | None:
        """The number of the first pattern that matches from the first segment on (lower case) from which one
        does; None where none does."""
        for offset, first in enumerate(segments):
            for number, pattern in self._by_first.get(first, self._any):
                if pattern.matches(segments[offset : offset + self._enough]):
                    return number
        return None


# What must never be kept as something else: found at any depth, since a service may be lenient with a prefix.
_AT_ANY_DEPTH = (ItemClass.CREDENTIALS, ItemClass.NEVER)


class ItemClassifier:
    """The class of an item, by a profile's table, below any version prefix or none."""

    def __init__(self, profile: Profile) -> None:
        self._versions = frozenset(profile.versions)
        self._roots = profile.roots
        self._table = tuple((PathPattern.parse(text), item) for text, item in profile.item_classes)
        numbered = tuple((number, row[0]) for number, row in enumerate(self._table))
        self._exact: dict[tuple[str, ...], int] = {}  # most rows are one path: these need no search
        for number, pattern in numbered:
            if pattern.is_one_path:
                self._exact.setdefault(pattern.segments, number)
        self._wide = tuple(one for one in numbered if not one[1].is_one_path)
        self._secret = tuple(row for row in self._table if row[1] in _AT_ANY_DEPTH)
        self._anywhere = PatternsAnywhere(pattern for pattern, _ in self._secret)
        self._query = tuple(PathPattern.parse(text) for text in profile.query_items)

    def classify(self, target: Target) -> ItemClass:
        """The first matching row; a directory (or a version itself) is a listing; else UNKNOWN."""
        below = self._below_version(target.segments)
        secret = self._anywhere.find(below[1:])
        if secret is not None:
            return self._secret[secret][1]
        row = self._row(below)
        if row is not None:
            item = self._table[row][1]
            listed = target.directory and item in (ItemClass.SLOW, ItemClass.STATIC)
            return ItemClass.LISTING if listed else item
        if target.directory or not below:
            return ItemClass.LISTING
        return ItemClass.UNKNOWN

    def _row(self, below: tuple[str, ...]) -> int | None:
        exact = self._exact.get(below)
        for number, pattern in self._wide:
            if exact is not None and exact < number:
                break
            if pattern.matches(below):
                return number
        return exact

    def takes_query(self, target: Target) -> bool:
        """Whether the item is one of those whose query has a meaning."""
        below = self._below_version(target.segments)
        return any(pattern.matches(below) for pattern in self._query)

    def _below_version(self, segments: tuple[str, ...]) -> tuple[str, ...]:
        # An unknown version is still a version: `/2031-01-01/user-data` is user-data.
        if segments and segments[0] not in self._roots:
            return segments[1:]
        return segments
