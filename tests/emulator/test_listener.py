import socketserver
from collections.abc import Callable
from typing import Any

import pytest

from imds_proxy.emulator.connections import Connections
from imds_proxy.emulator.listener import CannotListen, Listener, authority


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if line == b"fail\n":
            raise ConnectionError("the client is to blame")
        self.wfile.write(line)


def test_an_authority_has_brackets_around_ipv6() -> None:
    assert (authority(("127.0.0.1", 80)), authority(("::1", 80))) == ("127.0.0.1:80", "[::1]:80")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_served_and_kept_account_of(
    host: str, wire: Any, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    connections = Connections()
    listener = Listener((host, 0), Echo, connections)
    listener.start()
    try:
        client = wire(listener.address)
        eventually(lambda: len(connections) == 1)
        client.send(b"hello\n")
        assert client.rest() == b"hello\n"
        eventually(lambda: len(connections) == 0)
    finally:
        listener.stop()


def test_a_handler_that_fails_for_its_client_says_nothing(
    wire: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Listener(("127.0.0.1", 0), Echo, Connections())
    listener.start()
    try:
        client = wire(listener.address)
        client.send(b"fail\n")
        assert client.rest() == b""
    finally:
        listener.stop()
    assert capsys.readouterr().err == ""


def test_a_busy_port_is_named_with_the_reason() -> None:
    first = Listener(("127.0.0.1", 0), Echo, Connections())
    try:
        with pytest.raises(CannotListen) as caught:
            Listener(first.address, Echo, Connections())
    finally:
        first.stop()
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{first.address[1]}: Address already in use"


def test_after_a_stop_nobody_listens(wire: Any) -> None:
    listener = Listener(("127.0.0.1", 0), Echo, Connections())
    listener.start()
    listener.stop()
    with pytest.raises(ConnectionRefusedError):
        wire(listener.address)
