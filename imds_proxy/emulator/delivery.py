"""How an answer's bytes reach the client: whole, or broken as a fault says.

Knows no request and no item.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from imds_proxy.emulator.answers import Answer, head
from imds_proxy.emulator.connections import Connections, Gone

_GARBAGE = b"\x16\x03\x01\x00\xffSSH-2.0-not-http\r\n\x00\xfe\xfd 200 OK\n\n"
_DRIP = 0.2
_HANG_STEP = 0.2


class Delivery:
    """One connection's way out. `fault_now` gives the fault that is set at the moment: some end with it."""

    def __init__(
        self, connection: socket.socket, connections: Connections, fault_now: Callable[[], str | None]
    ) -> None:
        self._connection = connection
        self._connections = connections
        self._fault_now = fault_now

    def wait(self, delay: float, fault: str | None) -> None:
        """What happens before an answer: a delay (seconds), and the faults that leave none.

        Raises Gone if there is nobody left to answer.
        """
        if delay:
            self._connections.pause(self._connection, delay)
        if fault == "reset":
            self._connections.reset(self._connection)
            raise Gone
        while fault == "hang" and self._fault_now() == "hang":
            self._connections.pause(self._connection, _HANG_STEP, half_closed_is_gone=True)

    def send(self, answer: Answer, now: float, *, close: bool, bodiless: bool, fault: str | None) -> None:
        """Sends the answer, dated `now` (Unix seconds); `bodiless` for HEAD. Raises Gone where the
        connection ends with it though `close` did not say so, OSError where the client has left."""
        body = b"" if bodiless else answer.body
        if fault is None or fault in ("hang", "close_each"):
            self._connection.sendall(head(answer, now, close=close) + body)
        elif fault == "chunked":
            whole = head(answer, now, close=close, framing="Transfer-Encoding: chunked")
            self._connection.sendall(whole + (b"" if bodiless else _chunks(body)))
        elif fault == "drip":
            self._drip(head(answer, now, close=close) + body)
        else:
            self._break(head(answer, now, close=close), body, fault)

    def _break(self, head_bytes: bytes, body: bytes, fault: str) -> None:
        if fault == "garbage":
            self._connection.sendall(_GARBAGE)
            raise Gone
        half = head_bytes + body[: len(body) // 2] if body else head_bytes[: len(head_bytes) // 2]
        self._connection.sendall(half)
        if fault == "reset_mid_body":
            self._connections.reset(self._connection)
        raise Gone

    def _drip(self, whole: bytes) -> None:
        for at in range(len(whole)):
            if self._fault_now() != "drip":
                self._connection.sendall(whole[at:])
                return
            self._connection.sendall(whole[at : at + 1])
            self._connections.pause(self._connection, _DRIP)


def _chunks(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [part for part in (body[:half], body[half:]) if part]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
