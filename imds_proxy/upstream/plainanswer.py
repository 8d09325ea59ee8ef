"""Requests written and plain answers read without h11, which costs a miss more than all the rest. Pure.

Plain is an answer that came whole in one piece: HTTP/1.1, one Content-Length, nothing else that says where
it ends, or that the connection ends. Of any other nothing is said here: h11 reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Headers = tuple[tuple[bytes, bytes], ...]

MAX_HEAD = 16384  # bytes
_STATUS = re.compile(rb"HTTP/1\.1 ([2345][0-9]{2}) ([\x20-\x7e]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_FRAMING = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})
_BODYLESS = frozenset({204, 205, 304})


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """Header names are lower-case; `content-length` is among them."""

    status: int
    reason: bytes
    headers: Headers
    body: bytes = field(repr=False)  # may hold credentials


def encode_request(method: str, target: str, headers: Headers) -> bytes:
    """The head of a request without a body, as h11 would write it.

    Raises ValueError where a part of it would begin a line or a word of its own.
    """
    lines = [f"{method} {target} HTTP/1.1".encode("ascii"), *(b"%b: %b" % header for header in headers)]
    data = b"\r\n".join((*lines, b"", b""))
    ends = len(lines) + 1
    if data.count(b"\n") != ends or data.count(b"\r") != ends or b"\0" in data or lines[0].count(b" ") != 2:
        raise ValueError("a request line or header that is none")
    return data


def plain_answer(data: bytes) -> PlainAnswer | None:
    """The answer that these bytes are, all of them; None where h11 has to say what they are."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or int(status[1]) in _BODYLESS:
        return None
    headers = []
    length = None
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name, value = field[1].lower(), field[2] or b""
        if name in _FRAMING and (name, value.lower()) != (b"connection", b"keep-alive"):
            return None
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        headers.append((name, value))
    body = data[end + 4 :]
    if length is None or len(body) != length:
        return None
    return PlainAnswer(int(status[1]), status[2], tuple(headers), body)
