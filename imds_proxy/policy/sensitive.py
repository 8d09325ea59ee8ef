"""Which paths are sensitive: patterns that match at any segment offset.

So under every version prefix, known or unknown, or none, and under whatever a service may nest.
"""

from __future__ import annotations

from collections.abc import Iterable

from imds_proxy.protocol.items import PathPattern, PatternsAnywhere


class SensitivePaths:
    """A set of patterns. What lies below a sensitive item is as sensitive, `**` or not, and so is the
    listing that names the leaves of a `*`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises ValueError for a malformed pattern."""
        parsed = [PathPattern.parse(text) for text in patterns]
        self._patterns = tuple(PathPattern(p.text, _listing_too(p.segments), below=True) for p in parsed)
        self._anywhere = PatternsAnywhere(self._patterns)

    @property
    def heads(self) -> tuple[tuple[str, ...], ...]:
        """How what is sensitive begins, at some offset."""
        return tuple(pattern.head for pattern in self._patterns)

    def match(self, segments: tuple[str, ...]) -> str | None:
        """The text of the first pattern that covers the path, else None."""
        found = self._anywhere.find(segments)
        return None if found is None else self._patterns[found].text

    def touched_by(self, pattern: PathPattern) -> bool:
        """Whether some path that `pattern` matches is sensitive."""
        offsets = range(len(pattern.segments))
        return any(mine.meets(pattern, offset) for mine in self._patterns for offset in offsets)


def _listing_too(segments: tuple[str, ...]) -> tuple[str, ...]:
    return segments[:-1] if segments[-1] == "*" and len(segments) > 1 else segments
