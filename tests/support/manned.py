"""A daemon in this process with workers that the test plays, each at the other end of its channel."""

from __future__ import annotations

import array
import asyncio
import dataclasses
import io
import json
import pickle
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from imds_proxy.config import parse_address
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.server.arrivals import Arrivals
from imds_proxy.server.build import Daemon
from imds_proxy.server.listener import Listener, bind
from imds_proxy.server.log import Log
from imds_proxy.server.workers.board import Board
from imds_proxy.server.workers.channel import Message, packed, pair
from imds_proxy.server.workers.crew import Crew
from recorded import recorded_service
from served import GET, KnownCaller, echoing, served

ONE = Caller(Identity(1000, unit="test.service"), process=Process(7, "/usr/bin/test"))
MAC = GET % b"mac"
LAST = MAC[:-2] + b"Connection: close\r\n\r\n"


class FakeWorker:
    """What it was told; it says what the test says."""

    def __init__(self, wire: socket.socket) -> None:
        wire.setblocking(False)
        self.wire = wire

    def says(self, *message: Any, descriptor: int | None = None) -> None:
        numbers = array.array("i", [descriptor] if descriptor is not None else [])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
        self.wire.sendmsg([packed(message)], rights)

    async def hears(self, word: str) -> tuple[Message, int]:
        """The next message of that word, those before it passed over; and its descriptor."""
        while True:
            try:
                data, rights, _, _ = self.wire.recvmsg(131072, 64)
            except BlockingIOError:
                await asyncio.sleep(0.002)
                continue
            message = pickle.loads(data)
            if message[0] == word:
                return message[1:], array.array("i", rights[0][2])[0] if rights else -1


class FakeGround:
    """Workers are born as channels whose other end the test has."""

    def __init__(self, count: int) -> None:
        self.count, self.board = count, Board()
        self.born: list[FakeWorker] = []
        self.nursery = self
        self.closed = self.barren = False

    def bear(self, place: int) -> socket.socket:
        if self.barren:
            raise OSError
        ours, theirs = pair()
        self.born.append(FakeWorker(theirs))
        return ours

    def close(self) -> None:
        self.closed = True
        for worker in self.born:
            worker.wire.close()

    def number(self, listening: socket.socket) -> int:
        return 0


class Ship:
    """A daemon with a crew of two."""

    def __init__(self, daemon: Daemon, ground: FakeGround, crew: Crew, listener: Listener, text: io.StringIO):
        self.daemon, self.ground, self.crew, self.listener, self.text = daemon, ground, crew, listener, text
        self.elsewhere = socket.create_server(("127.0.0.1", 0))  # where workers accept

    async def worker(self, number: int = 0) -> FakeWorker:
        """One that is ready."""
        worker = self.ground.born[number]
        worker.says("ready", 0)
        await worker.hears("listen")
        return worker

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.text.getvalue().splitlines()]

    @contextmanager
    def handed(self, worker: FakeWorker, data: bytes, **changes: Any) -> Iterator[socket.socket]:
        """The caller's end of a connection that the worker hands over."""
        listening = self.elsewhere
        caller = socket.create_connection(listening.getsockname())
        accepted, (host, port) = listening.accept()
        peer = b"\x02\0" + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)
        to = listening.getsockname()[1].to_bytes(2, "big")
        own = b"\x02\0" + to + socket.inet_aton("127.0.0.1") + bytes(8)
        facts = {"seat": 0, "caller": ONE, "epoch": 0, "ends": (peer, own), "data": data, "owed": b""}
        facts |= {"short": False, "back": True, **changes}
        accepted.setblocking(False)
        with caller:
            worker.says("hand", *facts.values(), descriptor=accepted.fileno())
            accepted.close()
            caller.setblocking(False)
            yield caller


async def given(caller: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.sock_recv(caller, 65536), 5)


def manned(talk: Callable[[Ship], Coroutine[Any, Any, Any]], count: int = 2) -> Any:
    async def main() -> Any:
        async with recorded_service(echoing) as service, served(service) as (_, daemon):
            shared = dataclasses.replace(daemon.shared, attribution=KnownCaller())
            daemon = dataclasses.replace(daemon, shared=shared)
            daemon.attribution.epoch = 0
            text = io.StringIO()
            log, ground = Log("json", text), FakeGround(count)
            arrivals = Arrivals(lambda: daemon.shared)
            crew = Crew(ground, lambda: daemon, arrivals, log)  # type: ignore[arg-type]
            wire = bind(parse_address("127.0.0.1:0"), 1)
            ship = Ship(daemon, ground, crew, crew.listener(wire, wire), text)
            try:
                return await asyncio.wait_for(talk(ship), 10)
            finally:
                ship.listener.close()
                ship.elsewhere.close()
                crew.leaving = True
                ground.close()
                await asyncio.sleep(0.01)
                log.close()

    return asyncio.run(main())
