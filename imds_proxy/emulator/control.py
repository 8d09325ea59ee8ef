"""The control endpoint: state, settings and actions as JSON over HTTP. Knows nothing of metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from imds_proxy.emulator.connections import Connections
from imds_proxy.emulator.listener import Listener
from imds_proxy.emulator.settings import SettingsError

_LONGEST_BODY = 1 << 20


class Controlled(Protocol):
    """What can be controlled."""

    def state(self) -> dict[str, object]:
        """Counters and settings."""

    def patch(self, changes: Mapping[str, object]) -> None:
        """Applies a JSON merge patch to the settings. Raises SettingsError."""

    def reset_counters(self) -> None:
        """Counters back to nothing."""

    def revoke_tokens(self) -> None:
        """Ends all tokens."""

    def reset_connections(self) -> None:
        """Cuts all connections of the service by RST."""


class ControlListener(Listener):
    """The listening socket of the control endpoint."""

    def __init__(self, address: tuple[str, int], connections: Connections, controlled: Controlled) -> None:
        self.actions = {
            "/reset": controlled.reset_counters,
            "/revoke": controlled.revoke_tokens,
            "/disconnect": controlled.reset_connections,
        }
        self.controlled = controlled
        super().__init__(address, ControlHandler, connections)


class ControlHandler(BaseHTTPRequestHandler):
    """`GET /state`, `PATCH /state` (RFC 7396), `POST /reset`, `POST /revoke`, `POST /disconnect`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ControlListener

    def do_GET(self) -> None:  # the name http.server calls
        """State, or the list of what there is."""
        if self._path() == "/state":
            self._send(200, self.server.controlled.state())
        else:
            self._nothing_here()

    def do_PATCH(self) -> None:  # the name http.server calls
        """A change of settings, whole or not at all."""
        body = self._body()
        if body is None:
            return
        if self._path() != "/state":
            self._nothing_here()
            return
        try:
            self.server.controlled.patch(_json_object(body))
        except SettingsError as error:
            problems = [
                {"key": each.key, "problem": each.problem, "allowed": each.allowed} for each in error.problems
            ]
            self._send(400, {"error": str(error), "problems": problems})
        except ValueError as error:
            self._send(400, {"error": f"the body is no JSON object: {error}"})
        else:
            self._send(200, self.server.controlled.state())

    def do_POST(self) -> None:  # the name http.server calls
        """An action; the state after it is the answer."""
        if self._body() is None:
            return
        action = self.server.actions.get(self._path())
        if action is None:
            self._nothing_here()
            return
        action()
        self._send(200, self.server.controlled.state())

    def log_message(self, format: str, *args: object) -> None:
        """No log."""

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _body(self) -> bytes | None:
        """The request's body; None if its length is missing or no length, which has been answered."""
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not (length.isascii() and length.isdigit()):
            problem = "send a body with Content-Length"
        elif int(length[:10]) > _LONGEST_BODY:
            problem = f"a body may have {_LONGEST_BODY} bytes"
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        self._send(400, {"error": problem})
        return None

    def _nothing_here(self) -> None:
        there_is = ["GET /state", "PATCH /state", *(f"POST {path}" for path in self.server.actions)]
        self._send(404, {"error": f"no {self.command} {self._path()} here", "there_is": there_is})

    def _send(self, status: int, value: object) -> None:
        body = json.dumps(value, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _json_object(body: bytes) -> dict[str, object]:
    """The object that a body holds. Raises ValueError if it holds none."""
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}")
    return value
