"""One request to the service and the raw answer, bounded in time and size.

By hand and not by a library, which would tidy away what is asked for: knows no probe and no secret.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from imds_proxy.config import Address

LARGEST = 65536
"""Bytes of head and body that are read of one answer."""

SECONDS = 1.0
"""Bound on connecting, and on one answer."""

End = Literal["length", "chunked", "close", "timeout", "limit", "no-body"]


class ServiceError(Exception):
    """There was no answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came. `end` says what ended the body; `body` still has its chunk framing."""

    status_line: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    end: End
    seconds: float

    @property
    def payload(self) -> bytes:
        """The body without chunk framing; as far as it can be read where that is broken."""
        if not any(name.lower() == "transfer-encoding" for name, _ in self.headers):
            return self.body
        parts, rest = [], self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            try:
                length = int(size.partition(b";")[0], 16)
            except ValueError:
                break
            if length <= 0:
                break
            parts.append(rest[:length])
            rest = rest[length + 2 :]
        return b"".join(parts)

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class Connection:
    """A connection to the service, for one request or several. Raises ServiceError."""

    def __init__(self, address: Address) -> None:
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout=SECONDS)
        except OSError as error:
            raise ServiceError(error.strerror or "timed out") from None
        self._host = f"[{address.host}]" if ":" in address.host else address.host
        self._host += "" if address.port == 80 else f":{address.port}"
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        version: str = "1.1",
        host: str | None = None,
    ) -> Answer:
        """Sends one request without a body and reads its answer. Raises ServiceError."""
        lines = [f"{method} {target} HTTP/{version}", f"Host: {host or self._host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if method == "PUT":
            lines.append("Content-Length: 0")
        begin = time.monotonic()
        try:
            self._socket.settimeout(SECONDS)
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
            return self._read(method, begin)
        except OSError as error:
            raise ServiceError(error.strerror or "timed out") from None

    def _read(self, method: str, begin: float) -> Answer:
        data, ended = self._rest, ""
        while b"\r\n\r\n" not in data and not ended:
            data, ended = self._more(data, begin)
        head, gap, body = data.partition(b"\r\n\r\n")
        if not gap:
            raise ServiceError(
                {"timeout": "timed out", "limit": "endless head"}.get(ended, "closed, no answer")
            )
        status_line, *rows = head.decode("latin-1").split("\r\n")
        parts = status_line.split(" ", 2)
        if (
            not parts[0].startswith("HTTP/")
            or len(parts) < 2
            or not (parts[1].isascii() and parts[1].isdigit())
        ):
            raise ServiceError("not HTTP")
        headers = tuple((row.partition(":")[0], row.partition(":")[2].strip()) for row in rows)
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        length = int(lengths[0]) if lengths and lengths[0].isascii() and lengths[0].isdigit() else None
        chunked = any(name.lower() == "transfer-encoding" for name, _ in headers)
        status = int(parts[1])
        if method == "HEAD" or status in (204, 304):
            # Bytes after it would be a fault worth knowing: they stay in what comes next.
            self._rest = body
            return Answer(status_line, status, headers, b"", "no-body", time.monotonic() - begin)
        while not ended:
            if chunked and (body == b"0\r\n\r\n" or body.endswith(b"\r\n0\r\n\r\n")):
                ended = "chunked"
            elif not chunked and length is not None and len(body) >= length:
                ended = "length"
                body, self._rest = body[:length], body[length:]
            else:
                body, ended = self._more(body, begin)
        end: End = next(one for one in _ENDS if one == ended)
        return Answer(status_line, status, headers, body, end, time.monotonic() - begin)

    def _more(self, data: bytes, begin: float) -> tuple[bytes, str]:
        """Data with what came next, and why nothing more will (empty: more may)."""
        left = begin + SECONDS - time.monotonic()
        if left <= 0:
            return data, "timeout"
        if len(data) >= LARGEST:
            return data, "limit"
        self._socket.settimeout(left)
        try:
            part = self._socket.recv(LARGEST - len(data))
        except TimeoutError:
            return data, "timeout"
        except ConnectionError:
            return data, "close"
        return (data + part, "") if part else (data, "close")


_ENDS: tuple[End, ...] = ("length", "chunked", "close", "timeout", "limit", "no-body")
