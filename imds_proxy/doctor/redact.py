"""What of an answer may stand in a file that is handed on: its form always, its text only where harmless.

Pure. A body is kept by what it is seen to be (a listing, an error page), never by what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_SECRET_HEADERS = frozenset({"authorization", "cookie", "set-cookie", "x-aliyun-ecs-metadata-token"})
_LONGEST_HEADER = 256
_LONGEST_TEXT = 4096
_SHORTEST_SECRET = 4
_LISTING = re.compile(r"(?:[A-Za-z0-9._-]{1,40}/?(?:\r?\n|\Z))+")
_PATTERNS = (
    # A value in JSON, quotes included, even where the text was cut within it.
    re.compile(r'(?i)(?<=")(?:AccessKeyId|AccessKeySecret|SecurityToken)"\s*:\s*"[^"]*'),
    re.compile(r"-----BEGIN [\s\S]*?(?:-----END [^\n]*|\Z)"),
    re.compile(r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ +AAAA[^\n]*"),
    re.compile(r"\b(?:STS\.|TMP\.|LTAI)[A-Za-z0-9]{4,}"),
    re.compile(r"[A-Za-z0-9+/=_-]{44,}"),
)


def removed(length: int) -> str:
    """What stands in the place of a secret."""
    return f"<removed {length} bytes>"


def scrub(text: str, known: Sequence[str]) -> str:
    """The text without any known secret and without anything that has the form of one."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, removed(len(secret)))
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: removed(len(match[0].encode("utf-8", "surrogateescape"))), text)
    return text


def headers_as_facts(headers: Sequence[tuple[str, str]], known: Sequence[str]) -> list[list[str]]:
    """Names and values in their order."""
    return [
        [
            scrub(name, known)[:_LONGEST_HEADER],
            removed(len(value)) if name.lower() in _SECRET_HEADERS else scrub(value, known)[:_LONGEST_HEADER],
        ]
        for name, value in headers
    ]


def body_as_facts(body: bytes, status: int, known: Sequence[str], *, secret: bool) -> dict[str, Any]:
    """Length, line ends, the first line's form, a JSON object's own keys, and the text where it is harmless.

    A `secret` item's text is never kept, but its error page is.
    """
    text = body.decode("utf-8", "replace")
    page = status >= 400 and text.lstrip().startswith("<")
    listing = status == 200 and not secret and _LISTING.fullmatch(text) is not None
    kept = scrub(text, known)[:_LONGEST_TEXT] if page or listing else removed(len(body))
    return {
        "length": len(body),
        "trailing_newline": body.endswith(b"\n"),
        "crlf": body.count(b"\r\n"),
        "first_line": _form(text.split("\n", 1)[0]),
        "json_keys": _json_keys(text, known),
        "text": kept if body else "",
    }


def _form(line: str) -> dict[str, Any]:
    """A line's length and the kinds of its characters; ASCII marks stand for themselves."""
    kinds = {
        "A" if c.isupper() else "a" if c.islower() else "9" if c.isdigit() else c if c.isascii() else "?"
        for c in line
    }
    return {
        "length": len(line),
        "characters": "".join(sorted(kinds)),
        "leading_blanks": len(line) - len(line.lstrip(" ")),
    }


def _json_keys(text: str, known: Sequence[str]) -> list[str] | None:
    """The keys of a JSON object, None for anything else. The service's documented keys are short words."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return [
        key if re.fullmatch(r"[A-Za-z0-9-]{1,40}", key) and key not in known else removed(len(key))
        for key in value
    ]
