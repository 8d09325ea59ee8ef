"""An answer as a value and as bytes: status line, small fixed headers, body. Knows no socket and no item."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from imds_proxy.emulator.pages import error_page

PLAIN, HTML = "text/plain", "text/html"
_SERVER = "imds-emulator"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body, its type, and further header lines (`Name: value`, no line end)."""

    status: int
    body: bytes
    content_type: str = PLAIN
    headers: tuple[str, ...] = ()


def phrase(status: int) -> str:
    """The standard reason phrase of a status, `Unknown` for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


@lru_cache(maxsize=256)
def error(status: int, *headers: str) -> Answer:
    """The service's error page of a status as an answer."""
    return Answer(status, error_page(status, phrase(status)), HTML, headers)


def head(answer: Answer, now: float, *, close: bool, framing: str | None = None) -> bytes:
    """The head's bytes, dated `now` (Unix seconds). `framing` replaces the line with the length."""
    lines = [
        f"HTTP/1.1 {answer.status} {phrase(answer.status)}",
        f"Server: {_SERVER}",
        f"Date: {_date(int(now))}",
        f"Content-Type: {answer.content_type}",
        framing or f"Content-Length: {len(answer.body)}",
        *answer.headers,
    ]
    if close:
        lines.append("Connection: close")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
