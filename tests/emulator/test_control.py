import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imds_proxy.emulator.service import Emulator

PATH = "/latest/meta-data/instance-id"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(control=("127.0.0.1", 0)) as running:
        yield running


@pytest.fixture
def call(emulator: Emulator, wire: Any) -> Callable[..., tuple[int, dict[str, object]]]:
    client = wire(emulator.control_address)

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, dict[str, object]]:
        data = b"" if body is None else body.encode()
        client.send(f"{method} {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        reply = client.read()
        assert reply.headers["content-type"] == "application/json"
        return reply.status, json.loads(reply.body)

    return ask


def test_state_shows_counters_and_settings(emulator: Emulator, wire: Any, call: Any) -> None:
    client = wire(emulator.address)
    client.token()
    client.get(PATH)
    status, state = call("GET", "/state")
    assert status == 200
    settings = state.pop("settings")
    assert state == {
        "token_puts": 1, "v1_gets": 1, "v2_gets": 0, "refused": 0, "throttled": 0, "by_path": {PATH: 1},
        "live_tokens": 1,
    }  # fmt: skip
    assert settings["http_tokens"] == "optional"


def test_a_patch_changes_settings_while_it_runs(emulator: Emulator, wire: Any, call: Any) -> None:
    status, state = call("PATCH", "/state", '{"http_tokens": "required", "put_status": 404}')
    assert (status, state["settings"]["http_tokens"]) == (200, "required")
    client = wire(emulator.address)
    assert (client.get(PATH).status, client.token().status) == (403, 404)


def test_a_state_that_was_read_can_be_written_back(call: Any) -> None:
    _, state = call("GET", "/state")
    assert call("PATCH", "/state", json.dumps(state["settings"])) == (200, state)


def test_a_wrong_patch_names_each_key_and_what_is_allowed_and_changes_nothing(
    emulator: Emulator, call: Any
) -> None:
    before = emulator.settings
    status, answer = call("PATCH", "/state", '{"latency": 1, "fault": "boom", "colour": "red"}')
    assert status == 400
    assert [problem["key"] for problem in answer["problems"]] == ["colour", "fault"]
    assert "reset_mid_body" in answer["problems"][1]["allowed"]
    assert emulator.settings == before


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"latency": NaN}', "[" * 200_000])
def test_a_patch_that_is_no_json_object_of_settings_is_refused(
    emulator: Emulator, call: Any, body: str
) -> None:
    status, answer = call("PATCH", "/state", body)
    assert status == 400 and answer["error"]


def test_actions_clear_counters_revoke_tokens_and_cut_connections(
    emulator: Emulator, wire: Any, call: Any
) -> None:
    client = wire(emulator.address)
    client.token()
    client.get(PATH)
    assert call("POST", "/reset")[1]["v1_gets"] == 0
    assert call("POST", "/revoke")[1]["live_tokens"] == 0
    assert call("POST", "/disconnect")[0] == 200
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("POST", "/state"), ("PATCH", "/reset"), ("GET", "/reset")]
)
def test_anything_else_is_not_there_and_the_answer_says_what_is(call: Any, method: str, path: str) -> None:
    status, answer = call(method, path)
    assert status == 404
    assert answer["there_is"] == [
        "GET /state", "PATCH /state", "POST /reset", "POST /revoke", "POST /disconnect",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "header", ["Transfer-Encoding: chunked", "Content-Length: x", "Content-Length: 99999999"]
)
def test_a_body_without_a_fit_length_is_refused(emulator: Emulator, wire: Any, header: str) -> None:
    client = wire(emulator.control_address)
    client.send(f"PATCH /state HTTP/1.1\r\n{header}\r\n\r\n".encode())
    assert client.read().status == 400
    assert client.rest() == b""
