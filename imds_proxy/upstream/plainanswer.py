"""Requests written and plain answers read without h11, which costs a miss more than all the rest. Pure.

Plain is an answer that came whole in one piece: HTTP/1.1, one Content-Length, nothing else that says where
it ends, or that the connection ends. Of any other nothing is said here: h11 reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

Headers = tuple[tuple[bytes, bytes], ...]

MAX_HEAD = 16384  # bytes
_STATUS = re.compile(rb"HTTP/1\.1 ([2345][0-9]{2}) ([\x20-\x7e]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_FRAMING = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})
_BODYLESS = frozenset({204, 205, 304})


_MOST_KNOWN = 128


@dataclass(frozen=True, slots=True)
class PlainHead:
    """What a head says; header names are lower-case. `length` is that of the body, in bytes."""

    status: int
    reason: bytes
    headers: Headers
    length: int


class PlainHeads:
    """Reads plain answers. What their heads say is remembered by their exact bytes: most come again."""

    def __init__(self) -> None:
        self._known: dict[bytes, PlainHead] = {}

    def read(self, data: bytes) -> tuple[PlainHead, bytes] | None:
        """Head and body of the answer that these bytes are, all of them; None where h11 has to say what they
        are."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            return None
        text = data[:end]
        head = self._known.get(text)
        if head is None:
            head = plain_head(text)
            if head is None:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[text] = head
        body = data[end + 4 :]
        return (head, body) if len(body) == head.length else None


def header_lines(headers: Headers) -> bytes:
    """Headers as they stand in a request without a body, and its end, as h11 would write them.

    Raises ValueError where one of them would begin a line of its own.
    """
    data = b"".join([*(b"%b: %b\r\n" % header for header in headers), b"\r\n"])
    lines = len(headers) + 1
    if data.count(b"\n") != lines or data.count(b"\r") != lines or b"\0" in data:
        raise ValueError("a header that is none")
    return data


@lru_cache(maxsize=2048)
def request_line(method: str, target: str) -> bytes:
    """The first line. Raises ValueError where it would be more than one, or of more than three words."""
    line = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
    if line.count(b" ") != 2 or line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line:
        raise ValueError("a request line that is none")
    return line


def plain_head(text: bytes) -> PlainHead | None:
    """What a head without its last empty line says, if it is one of a plain answer."""
    first, *lines = text.split(b"\r\n")
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
    return None if length is None else PlainHead(int(status[1]), status[2], tuple(headers), length)
