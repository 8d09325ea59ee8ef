import socket
import time
from typing import Any

import pytest

from imds_proxy.emulator.listener import CannotListen
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings, SettingsError

PATH = "/latest/meta-data/instance-id"


def test_it_listens_on_every_address_while_its_block_runs(wire: Any) -> None:
    with Emulator(listen=[("127.0.0.1", 0), ("127.0.0.2", 0), ("::1", 0)]) as emulator:
        assert emulator.address == emulator.addresses[0]
        assert emulator.url == f"http://127.0.0.1:{emulator.address[1]}"
        for address in emulator.addresses:
            assert wire(address).get(PATH).status == 200
    for address in emulator.addresses:
        with pytest.raises(ConnectionRefusedError):
            wire(address)


def test_a_busy_address_is_an_error_that_leaves_nothing_open(wire: Any) -> None:
    with Emulator() as first:
        second = Emulator(listen=[("127.0.0.1", 0), first.address])
        with pytest.raises(CannotListen):
            second.start()
        assert wire(first.address).get(PATH).status == 200
    with second:
        assert wire(second.address).get(PATH).status == 200


def test_it_cannot_be_started_twice_and_stops_any_number_of_times() -> None:
    with Emulator() as emulator:
        with pytest.raises(RuntimeError):
            emulator.start()
        emulator.stop()


def test_a_stop_closes_open_connections_and_is_quick(wire: Any, eventually: Any) -> None:
    with Emulator(Settings(latency=30)) as emulator:
        idle, waiting = wire(emulator.address), wire(emulator.address)
        waiting.send(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
        eventually(lambda: emulator.counters().v1_gets == 1)
        start = time.monotonic()
        emulator.stop()
        assert time.monotonic() - start < 0.9
        assert idle.rest() == waiting.rest() == b""


@pytest.mark.parametrize(("keep", "status"), [(True, 200), (False, 401)])
def test_a_restart_is_at_the_same_port_and_keeps_tokens_or_not(wire: Any, keep: bool, status: int) -> None:
    emulator = Emulator(keep_tokens=keep)
    with emulator:
        client = wire(emulator.address)
        token = client.token().body.decode()
        address = emulator.address
        emulator.stop()
        assert client.rest() == b""
        emulator.start()
        assert emulator.address == address
        assert wire(address).get(PATH, f"X-aliyun-ecs-metadata-token: {token}").status == status


def test_a_successor_at_the_same_port_knows_the_tokens_and_the_credentials(wire: Any) -> None:
    path = "/latest/meta-data/ram/security-credentials/demo-role"
    with Emulator() as first:
        client = wire(first.address)
        header = f"X-aliyun-ecs-metadata-token: {client.token().body.decode()}"
        credentials = client.get(path, header).body
    with Emulator(listen=[first.address], tokens=first.tokens, issuer=first.issuer) as second:
        assert wire(second.address).get(path, header).body == credentials


def test_connections_can_be_reset_while_it_serves_on(wire: Any) -> None:
    with Emulator() as emulator:
        clients = [wire(emulator.address) for _ in range(3)]
        for client in clients:
            client.get(PATH)
        emulator.reset_connections()
        assert emulator.open_connections == 0
        for client in clients:
            with pytest.raises(ConnectionResetError):
                client.socket.recv(1)
        assert wire(emulator.address).get(PATH).status == 200


def test_settings_counters_and_tokens_are_at_hand(wire: Any) -> None:
    with Emulator(Settings(http_tokens="required")) as emulator:
        client = wire(emulator.address)
        header = f"X-aliyun-ecs-metadata-token: {client.token().body.decode()}"
        assert client.get(PATH, header).status == 200
        assert emulator.state()["live_tokens"] == 1
        emulator.revoke_tokens()
        assert client.get(PATH, header).status == 401
        emulator.patch(http_tokens="optional")
        emulator.patch({"role": None})
        assert (emulator.settings.http_tokens, emulator.settings.role) == ("optional", None)
        with pytest.raises(SettingsError):
            emulator.patch(http_token="optional")
        counts = emulator.counters()
        assert (counts.token_puts, counts.v1_gets, counts.v2_gets, counts.refused) == (1, 0, 2, 1)
        emulator.reset_counters()
        assert emulator.counters().v2_gets == 0


def test_small_answers_are_not_held_back(wire: Any) -> None:
    with Emulator() as emulator:
        client = wire(emulator.address)
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic()
        for _ in range(50):
            client.get(PATH)
        assert time.monotonic() - start < 1  # delayed acknowledgements would cost 40 ms each
