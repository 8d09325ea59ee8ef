"""HTTP of one connection: reads requests with http.server's parser, writes answers in one send.

Knows the framing only; what is answered comes from the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from imds_proxy.emulator.answers import Answer, error
from imds_proxy.emulator.connections import Connections, Gone
from imds_proxy.emulator.delivery import Delivery
from imds_proxy.emulator.listener import Listener
from imds_proxy.emulator.metadata import MetadataService, Request

_LONGEST_LINE = 65536
_LONGEST_BODY = 1 << 20


class MetadataListener(Listener):
    """A listening socket of the service, and what its connections need. `log` gets a line per request."""

    def __init__(
        self,
        address: tuple[str, int],
        connections: Connections,
        service: MetadataService,
        log: Callable[[str], None] | None,
    ) -> None:
        self.service = service
        self.log = log
        super().__init__(address, Handler, connections)

    def accepting(self) -> bool:
        """Whether connections are taken out of the kernel's queue now."""
        return self.service.settings.fault != "no_accept"


class Handler(BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: MetadataListener

    def setup(self) -> None:
        """Called by socketserver before `handle`."""
        super().setup()
        self._service = self.server.service
        self._delivery = Delivery(
            self.connection, self.server.connections, lambda: self._service.settings.fault
        )

    def handle(self) -> None:
        """Called by socketserver: all requests of the connection."""
        try:
            super().handle()
        except (Gone, OSError):
            self.close_connection = True

    def handle_one_request(self) -> None:
        """Reads one request and answers it; sets `close_connection` where it was the last."""
        self.close_connection = True
        self.command = self.requestline = ""
        line = self.rfile.readline(_LONGEST_LINE + 1)
        if line in (b"\r\n", b"\n"):  # RFC 9112, 2.2: an empty line before a request line is ignored
            line = self.rfile.readline(_LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE:
            self.send_error(414)
            return
        self.raw_requestline = line
        words = line.split()
        if len(words) != 3:  # http.server would take two words for HTTP/0.9 and wait for headers
            self.requestline = line.decode("latin-1").rstrip()
            self.send_error(400)
            return
        if not self.parse_request():  # has answered
            return
        if self.request_version != "HTTP/1.1" or "close" in self._connection_options():
            self.close_connection = True
        if not _skip_body(
            cast(BinaryIO, self.rfile), self.headers.get_all("transfer-encoding"), self._length()
        ):
            self.send_error(400)
            return
        self._respond(self._request(words[1].decode("latin-1")))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server calls for a request it cannot parse: the service's page, and the end."""
        self.close_connection = True
        self._send(error(int(code)), fault=None)

    def log_message(self, format: str, *args: object) -> None:
        """http.server's own log: not used."""

    def _connection_options(self) -> list[str]:
        # http.server takes `close` only where it stands alone; libwww-perl sends `TE, close`.
        values = ",".join(self.headers.get_all("connection", []))
        return [option.strip().lower() for option in values.split(",")]

    def _length(self) -> str | None:
        lengths = self.headers.get_all("content-length")
        return None if lengths is None else ",".join(lengths)

    def _request(self, target: str) -> Request:
        if not target.startswith("/"):  # absolute form: a proxy or a client told of one
            parts = urlsplit(target) if target.lower().startswith("http://") else None
            target = target if parts is None else parts._replace(scheme="", netloc="").geturl() or "/"
        path, _, query = target.partition("?")
        headers = self.headers
        return Request(
            method=self.command,
            path=path,
            query=query,
            token=headers.get("x-aliyun-ecs-metadata-token", ""),
            ttl=headers.get("x-aliyun-ecs-metadata-token-ttl-seconds"),
            forwarded="x-forwarded-for" in headers,
        )

    def _respond(self, request: Request) -> None:
        service = self._service
        treatment = service.receive(request)
        if treatment.delay or treatment.fault:
            self._delivery.wait(treatment.delay, treatment.fault)
        if treatment.fault == "close_each" or not service.settings.keep_alive:
            self.close_connection = True
        self._send(service.answer(request), treatment.fault)

    def _send(self, answer: Answer, fault: str | None) -> None:
        if self.server.log is not None:
            line = self.requestline.encode("unicode_escape").decode()
            stamp = time.strftime("%H:%M:%S")
            self.server.log(
                f'{stamp} {self.client_address[0]}:{self.client_address[1]} "{line}" {answer.status}'
                f" {len(answer.body)}{f' fault={fault}' if fault else ''}"
            )
        self._delivery.send(
            answer,
            self._service.now(),
            close=self.close_connection,
            bodiless=self.command == "HEAD",
            fault=fault,
        )


def _skip_body(stream: BinaryIO, encodings: list[str] | None, length: str | None) -> bool:
    """Reads and drops a request's body. False: it is malformed, too long or cut short."""
    if encodings is not None:
        return [coding.strip().lower() for coding in encodings] == ["chunked"] and _skip_chunks(stream)
    if length is None:
        return True
    if not (length.isascii() and length.isdigit() and len(length) < 10) or int(length) > _LONGEST_BODY:
        return False
    return len(stream.read(int(length))) == int(length)


def _skip_chunks(stream: BinaryIO) -> bool:
    total = 0
    while True:
        size_text = stream.readline(64).split(b";")[0].strip()
        try:
            size = int(size_text, 16)
        except ValueError:
            return False
        total += size
        if size < 0 or total > _LONGEST_BODY:
            return False
        if size == 0:
            break
        if len(stream.read(size)) != size or stream.readline(3).strip():
            return False
    while (line := stream.readline(_LONGEST_LINE)) not in (b"\r\n", b"\n"):
        if not line:
            return False
    return True
