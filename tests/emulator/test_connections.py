import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from imds_proxy.emulator.connections import Connections, Gone


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's and the server's end of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        server, _ = listener.accept()
    with client, server:
        yield client, server


Pair = tuple[socket.socket, socket.socket]


def test_a_close_is_a_fin(pair: Pair) -> None:
    client, server = pair
    connections = Connections()
    connections.add(server)
    connections.close(server)
    assert client.recv(1) == b""
    assert len(connections) == 0


def test_a_close_after_a_reset_is_a_rst(pair: Pair) -> None:
    client, server = pair
    connections = Connections()
    connections.add(server)
    connections.reset(server)
    connections.close(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_resetting_all_wakes_a_reader_and_waits_until_its_connection_is_gone(pair: Pair) -> None:
    client, server = pair
    connections = Connections()
    connections.add(server)

    def serve() -> None:
        server.recv(1)
        connections.close(server)

    thread = threading.Thread(target=serve)
    thread.start()
    connections.reset_all()
    assert len(connections) == 0
    thread.join()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_pause_lasts_as_long_as_it_says(pair: Pair) -> None:
    start = time.monotonic()
    Connections().pause(pair[1], 0.08)
    assert 0.08 <= time.monotonic() - start < 1


@pytest.mark.parametrize("cut", ["stop", "reset"])
def test_a_pause_ends_when_the_connection_is_cut(pair: Pair, cut: str) -> None:
    server = pair[1]
    connections = Connections()
    connections.add(server)
    act: Callable[[], None] = connections.stopping.set if cut == "stop" else lambda: connections.reset(server)
    timer = threading.Timer(0.05, act)
    timer.start()
    with pytest.raises(Gone):
        connections.pause(server, 30)
    timer.join()


def test_a_client_that_only_finished_sending_is_gone_only_where_that_counts(pair: Pair) -> None:
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    Connections().pause(server, 0.06)
    with pytest.raises(Gone):
        Connections().pause(server, 30, half_closed_is_gone=True)
