"""Answers as bytes: small heads, always a Content-Length, never chunked.

A raw client stops at 1,024 bytes of head and body and does not de-chunk. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus

from imds_proxy.errors import TOKEN_TTL, Refusal

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REFUSAL_HEADER = b"X-Imds-Proxy"
_CLOSE = b"Connection: close\r\n"
# Titles of the service's own error pages where they differ from the standard phrase (provider's page).
_PHRASES = {TOKEN_TTL.slug: "Missing or Invalid Parameters"}
_PAGE = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
         "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{title}</title>
 </head>
 <body>
  <h1>{title}</h1>
  <p>imds-proxy: {slug}: {sentence}</p>
 </body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, reason phrase, headers without framing ones, body as it came.

    `complete` is false where the body ended with the connection, so that nobody can tell whether it was cut.
    """

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = field(repr=False)  # may hold credentials
    complete: bool = True

    def encode(self, *, head_only: bool, keep_alive: bool) -> bytes:
        """The bytes for the wire; for HEAD the length of the body that a GET would have."""
        return b"".join(
            (
                b"HTTP/1.1 %d %s\r\n" % (self.status, self.reason),
                *(b"%s: %s\r\n" % header for header in self.headers),
                b"Content-Length: %d\r\n" % len(self.body),
                b"\r\n" if keep_alive else _CLOSE + b"\r\n",
                b"" if head_only else self.body,
            )
        )


def plain(status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    """An answer of text/plain with the standard reason phrase."""
    reason = HTTPStatus(status).phrase.encode("ascii")
    return Answer(status, reason, ((b"Content-Type", b"text/plain"), *headers), body)


@lru_cache(maxsize=128)
def refusal_answer(refusal: Refusal, retry_after: int | None = None) -> Answer:
    """The page for a refusal: the service's own template, with the slug and the sentence.

    `retry_after` (whole seconds) goes out as Retry-After; a 503 always has one, 1 s unless told.
    """
    standard = HTTPStatus(refusal.status).phrase
    title = f"{refusal.status} - {_PHRASES.get(refusal.slug, standard)}"
    body = _PAGE.format(title=title, slug=refusal.slug, sentence=refusal.sentence).encode("ascii")
    headers = [(b"Content-Type", b"text/html"), (REFUSAL_HEADER, refusal.slug.encode("ascii"))]
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE or retry_after is not None:
        headers.append((b"Retry-After", b"%d" % (retry_after or 1)))
    return Answer(refusal.status, standard.encode("ascii"), tuple(headers), body)
