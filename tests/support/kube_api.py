"""An API server of Kubernetes as far as pods go: pages, versions, watches, over TLS. A thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-agent"
_T = TypeVar("_T")


def pod_object(name: str, uid: str, ip: str | None = None, **more: Any) -> dict[str, Any]:
    """A pod as the API server writes it; `labels`, `account`, `containers` (id to name and image)."""
    containers = [
        {"containerID": f"containerd://{number}", "name": container, "image": image}
        for number, (container, image) in more.get("containers", {}).items()
    ]
    return {
        "metadata": {
            "name": name,
            "namespace": more.get("namespace", "default"),
            "uid": uid,
            "labels": more.get("labels", {}),
            "annotations": more.get("annotations", {}),
        },
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": more.get("account", "default"),
            "hostNetwork": more.get("host_network", False),
        },
        "status": {
            "phase": "Running",
            **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}),
            "containerStatuses": containers,
        },
    }


class KubeApi:
    """`credentials` is a directory as a pod has it. Calls are for other threads than its own."""

    def __init__(self, credentials: Path, host: str, port: int) -> None:
        self.credentials, self.host, self.port = credentials, host, port
        self.targets: list[str] = []
        self.page = 1000  # most items of a page
        self.fault: tuple[int, bytes] | None = None  # status and body of every answer
        self.raw_events: list[bytes] = []  # sent on every watch first
        self._pods: dict[str, dict[str, Any]] = {}
        self._version = 100
        self._oldest = 0  # watches from before are told 410
        self._history: list[tuple[int, bytes]] = []
        self._changed = asyncio.Event()
        self._watches: set[asyncio.Task[Any]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    def put(self, pod: dict[str, Any]) -> None:
        self._call(self._put, pod)

    def delete(self, uid: str) -> None:
        self._call(self._delete, uid)

    def forget_history(self) -> None:
        """Ends watches; what they would go on from is too old from now on."""
        self._call(self._forget)

    def end_watches(self) -> None:
        self._call(self._end)

    def bookmark(self) -> None:
        self._call(self._bookmark)

    @property
    def watches(self) -> int:
        return len(self._watches)

    def _call(self, function: Callable[..., _T], *words: Any) -> _T:
        assert self.loop is not None
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(function(*words))
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return done.result(10)

    def _put(self, pod: dict[str, Any]) -> None:
        kind = "MODIFIED" if pod["metadata"]["uid"] in self._pods else "ADDED"
        self._pods[pod["metadata"]["uid"]] = pod
        self._tell(kind, pod)

    def _delete(self, uid: str) -> None:
        self._tell("DELETED", self._pods.pop(uid))

    def _bookmark(self) -> None:
        self._tell("BOOKMARK", {"metadata": {}})

    def _forget(self) -> None:
        self._version += 1
        self._oldest = self._version
        self._history.clear()
        self._end()

    def _end(self) -> None:
        for watch in self._watches:
            watch.cancel()

    def _tell(self, kind: str, pod: dict[str, Any]) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, json.dumps({"type": kind, "object": pod}).encode() + b"\n"))
        self._changed.set()
        self._changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target = head.split(" ")[1]
            self.targets.append(target)
            asked = parse_qs(urlsplit(target).query)
            if self.fault is not None:
                _answer(writer, *self.fault)
            elif f"authorization: bearer {TOKEN}\r\n" not in head.lower():
                _answer(writer, 401, b"{}")
            elif asked.get("watch") == ["true"]:
                await self._watch(writer, int(asked["resourceVersion"][0]))
            else:
                _answer(writer, 200, self._list(asked))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _list(self, asked: dict[str, list[str]]) -> bytes:
        start = int(asked.get("continue", ["0"])[0])
        size = min(self.page, int(asked["limit"][0]))
        items = list(self._pods.values())
        metadata = {"resourceVersion": str(self._version)}
        if start + size < len(items):
            metadata["continue"] = str(start + size)
        return json.dumps(
            {"kind": "PodList", "metadata": metadata, "items": items[start : start + size]}
        ).encode()

    async def _watch(self, writer: asyncio.StreamWriter, version: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        task = asyncio.current_task()
        assert task is not None
        if version < self._oldest:
            event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
            _chunk(writer, json.dumps(event).encode() + b"\n")
            writer.write(b"0\r\n\r\n")
            return
        for event_bytes in self.raw_events:
            _chunk(writer, event_bytes)
        self._watches.add(task)
        with suppress(asyncio.CancelledError):
            while True:
                changed = self._changed
                for number, line in self._history:
                    if number > version:
                        version = number
                        _chunk(writer, line)
                await writer.drain()
                await changed.wait()
        self._watches.discard(task)
        writer.write(b"0\r\n\r\n")


def _answer(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    # In two pieces, so that no reader may think that a chunk is a line.
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if piece:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def make_credentials(directory: Path, host: str) -> None:
    """token and ca.crt, and the server's own certificate and key beside them."""
    directory.mkdir(exist_ok=True)
    (directory / "token").write_text(TOKEN + "\n")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "30", "-subj", "/CN=kubernetes", "-addext", f"subjectAltName=IP:{host}"),
            *("-keyout", str(directory / "tls.key"), "-out", str(directory / "ca.crt")),
        ],
        check=True,
        capture_output=True,
    )


@contextmanager
def kube_api(credentials: Path, listening: socket.socket) -> Iterator[KubeApi]:
    """Serves on a socket, which may be of another network namespace."""
    host, port = listening.getsockname()[:2]
    make_credentials(credentials, host)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(credentials / "ca.crt", credentials / "tls.key")
    api = KubeApi(credentials, host, port)
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        api.loop = asyncio.get_running_loop()
        server = await asyncio.start_server(api.serve, sock=listening, ssl=context)
        ready.set()
        await stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in api.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # transports close at the loop's next turns

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield api
    finally:
        assert api.loop is not None
        api.loop.call_soon_threadsafe(stop.set)
        thread.join(10)
