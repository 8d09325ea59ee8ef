"""One GET to the API server at a time, over TLS, with the service account's token; the answer in pieces.

Answers are bounded by whoever reads the pieces. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11

_CONNECT = 5.0  # seconds
_PIECE = 65536
_MAX_HEAD = 65536


class ApiError(Exception):
    """The API server cannot be asked, or does not answer as it should. `status` is of its answer, or 0."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where it is (a host name or IP address, and a port), and the directory of the service account's
    `token` and `ca.crt`, read anew for each request: tokens are replaced while a pod lives."""

    host: str
    port: int
    credentials: Path

    @asynccontextmanager
    async def get(self, target: str, silence: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a 200, piece by piece.

        Raises ApiError for any other answer, and, then or while it is read, when the server cannot be
        reached, breaks off, or is silent for `silence` seconds.
        """
        context, token = self._credentials()
        reader, writer = await self._connected(context)
        pieces = _Answer(reader, writer, silence)
        headers = [
            ("Host", self._name()),
            ("Authorization", f"Bearer {token}"),
            ("Accept", "application/json"),
            ("User-Agent", "imds-proxy"),
            ("Connection", "close"),
        ]
        try:
            await pieces.ask(h11.Request(method="GET", target=target, headers=headers))
            yield pieces.body()
        except _Status as status:
            raise ApiError(f"{self._name()} answered {status.code}", status.code) from None
        except (h11.RemoteProtocolError, OSError) as error:
            why = "was silent for too long" if pieces.silent else f"broke off: {error}"
            raise ApiError(f"{self._name()} {why}") from None
        finally:
            pieces.close()

    async def _connected(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        opening = asyncio.ensure_future(asyncio.open_connection(self.host, self.port, ssl=context))
        opening.add_done_callback(_take_error)
        try:
            # Unlike wait_for, wait never loses a cancellation.
            done, _ = await asyncio.wait((opening,), timeout=_CONNECT)
        except asyncio.CancelledError:
            _give_up(opening)
            raise
        if not done:
            _give_up(opening)
            raise ApiError(f"{self._name()} cannot be reached: no answer in time")
        if isinstance(error := opening.exception(), OSError):
            raise ApiError(f"{self._name()} cannot be reached: {error}") from None
        return opening.result()

    def _name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def _credentials(self) -> tuple[ssl.SSLContext, str]:
        try:
            token = (self.credentials / "token").read_text("ascii").strip()
            context = ssl.create_default_context(cafile=str(self.credentials / "ca.crt"))
        except (OSError, ValueError) as error:
            raise ApiError(f"no credentials of a service account in {self.credentials}: {error}") from None
        if not token or not token.isprintable() or " " in token:
            raise ApiError(f"{self.credentials / 'token'} holds no token")
        return context, token


_Opening = asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


def _take_error(opening: _Opening) -> None:
    if not opening.cancelled():
        opening.exception()


def _give_up(opening: _Opening) -> None:
    if opening.done() and not opening.cancelled() and opening.exception() is None:
        opening.result()[1].transport.abort()
    opening.cancel()


class _Status(Exception):
    """The answer's status is not 200 but `code`."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class _Answer:
    """One exchange; the connection is dropped after `silence` seconds without a byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence: float) -> None:
        self._reader, self._writer, self._silence = reader, writer, silence
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self.silent = False

    async def ask(self, request: h11.Request) -> None:
        """Sends it and reads the answer's head. Raises _Status, h11.RemoteProtocolError, OSError."""
        sent = self._http.send(request) or b""
        self._writer.write(sent + (self._http.send(h11.EndOfMessage()) or b""))
        response = await self._event()
        if not isinstance(response, h11.Response):
            raise ConnectionError("no answer")
        if response.status_code != 200:
            raise _Status(response.status_code)

    async def body(self) -> AsyncIterator[bytes]:
        """Raises h11.RemoteProtocolError, OSError."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError("the answer ended too early")

    def close(self) -> None:
        """Drops the connection."""
        self._writer.transport.abort()

    async def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse):
                continue
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._read())

    async def _read(self) -> bytes:
        timer = asyncio.get_running_loop().call_later(self._silence, self._give_up)
        try:
            return await self._reader.read(_PIECE)
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.silent = True
        self.close()
