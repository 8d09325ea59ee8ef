"""The admin socket: for root and the daemon's user only, one command a connection."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from imds_proxy.server.admin import AdminSocket, ask

T = TypeVar("T")


async def _hello(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"ok": True, "said": "hello"}


def with_socket(path: Path, talk: Callable[[], T]) -> T:
    async def main() -> T:
        admin = AdminSocket(path, {"hello": _hello})
        await admin.open()
        try:
            return await asyncio.wait_for(asyncio.to_thread(talk), 10)
        finally:
            await admin.close()

    return asyncio.run(main())


def said(path: Path, raw: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(5)
        wire.connect(str(path))
        wire.sendall(raw)
        wire.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: wire.recv(4096), b""))


def test_a_command_is_answered_and_the_socket_is_gone_after(tmp_path: Path) -> None:
    path = tmp_path / "run" / "admin.sock"
    assert with_socket(path, lambda: ask(path, "hello")) == {"ok": True, "said": "hello"}
    assert not path.exists()


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    mode = with_socket(path, lambda: stat.S_IMODE(path.stat().st_mode))
    assert mode == 0o600


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_is_refused_even_where_the_socket_was_opened_to_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    def talk() -> bytes:
        path.chmod(0o666)
        tmp_path.chmod(0o755)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # asks by a relative name: the directories above are closed to it
            try:
                os.chdir(tmp_path)
                os.setuid(65534)
                os.write(write, said(Path(path.name), b'{"command": "hello"}\n'))
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            found = answer.read()
        os.waitpid(pid, 0)
        return found

    assert b"only root and the daemon's own user may ask" in with_socket(path, talk)


@pytest.mark.parametrize("raw", [b"", b"\n", b"no json\n", b"[1]\n", b'{"command": 5}\n', b"x" * 9000])
def test_nonsense_does_nothing_and_the_next_is_served(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "admin.sock"

    def talk() -> tuple[bytes, dict[str, Any]]:
        return said(path, raw), ask(path, "hello")

    nonsense, after = with_socket(path, talk)
    assert b"hello" not in nonsense or b"no such command" in nonsense
    assert after["ok"]


def test_an_unknown_command_is_told_which_there_are(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    assert with_socket(path, lambda: ask(path, "bye"))["errors"] == ["no such command; there is hello"]


def test_a_left_over_socket_is_replaced_a_living_one_and_other_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert with_socket(path, lambda: ask(path, "hello"))["ok"]

    def second() -> None:
        with pytest.raises(FileExistsError):
            asyncio.run(AdminSocket(path, {}).open())

    with_socket(path, second)
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        asyncio.run(AdminSocket(path, {}).open())
    assert path.read_text() == "precious"
