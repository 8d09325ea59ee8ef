"""The canonical target: one form, computed once, for rules, cache, log and upstream alike.

What has one meaning is normalised; what could have two is refused. Knows nothing of who asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imds_proxy.errors import (
    TARGET_CHARACTER,
    TARGET_DOTS,
    TARGET_ENCODING,
    TARGET_FORM,
    TARGET_PARAMS,
    Refused,
)

# RFC 3986 pchar without ";" (path parameters) and "%": these need no encoding in a segment.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@")
# Characters that need encoding, have one meaning, and so are kept encoded however they were written.
_ENCODED = frozenset(b' "<>[]^`{|}')
# A segment that may be a secret which a client put into its path: long, and of all kinds of letters.
_OPAQUE = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9_=+.-]{40,}")
_HIDDEN = "***"
_ROLES = "security-credentials"  # names of roles may be as long
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Target:
    """`path` goes upstream, `shown` into log and ledger; `query` verbatim (None when there was no "?").

    `segments` are those of the path in lower case, without a trailing slash: rules compare these, since
    the service accepts some variants of case. `directory` says that the path ended in a slash.
    """

    path: str
    query: str | None
    segments: tuple[str, ...]
    directory: bool
    shown: str

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells one item from another: path and query."""
        return self.path, self.query

    def is_twin(self, other: Target) -> bool:
        """Whether `other` has the same segments. Who may read one may read both: patterns pass over a
        last slash, so a twin is decided as its sibling was."""
        return self.segments == other.segments

    @property
    def text(self) -> str:
        """The target as it stands in a request line."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


def canonical_target(raw: bytes) -> Target:
    """The canonical form of a request target as h11 gave it.

    Raises Refused with one of the target refusals.
    """
    if not raw.startswith(b"/"):
        raise Refused(TARGET_FORM)
    path, mark, query = raw.partition(b"?")
    if b"#" in raw:
        raise Refused(TARGET_CHARACTER, "fragment")
    if any(byte <= 0x20 or byte >= 0x7F for byte in query):
        raise Refused(TARGET_CHARACTER, "query byte")
    segments = [_segment(part) for part in path.split(b"/") if part]
    directory = path.endswith(b"/")
    text = "/" + "/".join(segments) + ("/" if directory and segments else "")
    return Target(
        path=text,
        query=query.decode("ascii") if mark else None,
        segments=tuple(segment.lower() for segment in segments),
        directory=directory,
        shown=_shown(text, segments),
    )


def _shown(path: str, segments: list[str]) -> str:
    """The path without what may be a secret."""
    if not any(map(_OPAQUE.fullmatch, segments)):
        return path
    before = ("", *(segment.lower() for segment in segments))
    parts = (
        _HIDDEN if _OPAQUE.fullmatch(segment) and above != _ROLES else segment
        for segment, above in zip(segments, before, strict=False)
    )
    return "/" + "/".join(parts) + ("/" if path.endswith("/") else "")


def _segment(raw: bytes) -> str:
    """One segment, decoded once where it needs no encoding, encoded in upper-case hex where it does."""
    if b"%" in raw:
        if raw.count(b"%") != len(_ESCAPE.findall(raw)):
            raise Refused(TARGET_ENCODING, "broken escape")
        raw = _ESCAPE.sub(_decode, raw)
    if b";" in raw:
        raise Refused(TARGET_PARAMS)
    out = []
    for byte in raw:
        if byte in _PLAIN:
            out.append(chr(byte))
        elif byte in _ENCODED:
            out.append(f"%{byte:02X}")
        else:
            raise Refused(TARGET_CHARACTER)
    segment = "".join(out)
    if segment in {".", ".."}:
        raise Refused(TARGET_DOTS)
    return segment


def _decode(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    if byte in _PLAIN or byte in _ENCODED or byte == 0x3B:  # ";" is refused as a parameter, by name
        return bytes((byte,))
    # An encoded slash, backslash, percent, "?", "#", control or non-ASCII byte could mean two things.
    raise Refused(TARGET_ENCODING, f"%{byte:02X}")
