"""Raw bytes over a real socket, and all that comes back."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """One answer: status, the slug of a refusal (else ""), body."""

    status: int
    slug: str
    body: bytes


def say(address: tuple[str, int], *pieces: bytes, patience: float = 0.1) -> list[Said]:
    """Sends the pieces on one connection; all answers until it closes or `patience` seconds of silence."""
    raw = b""
    with socket.create_connection(address, 5) as wire:
        wire.settimeout(5)
        try:
            for piece in pieces:
                wire.sendall(piece)
            while data := wire.recv(65536):
                raw += data
                wire.settimeout(patience)
        except (TimeoutError, ConnectionError):
            pass
    return parsed(raw)


def parsed(raw: bytes) -> list[Said]:
    """The answers in a stream; raises AssertionError for anything between or after them."""
    answers = []
    while raw:
        head = _HEAD.match(raw)
        assert head, raw[:200]
        lines = dict(line.split(b": ", 1) for line in head[2].split(b"\r\n"))
        end = head.end() + int(lines[b"Content-Length"])
        assert len(raw) >= end, "an answer was cut"
        slug = lines.get(b"X-Imds-Proxy", b"").decode()
        answers.append(Said(int(head[1]), slug, raw[head.end() : end]))
        raw = raw[end:]
    return answers
