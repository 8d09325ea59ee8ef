"""The daemon as a process of its own, for tests over real sockets."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import evidence
from imds_proxy.demo.processes import announced, ending

# Most tests are not about rates, and ask faster than any caller should.
PLENTY = {"hits": "1000000/s", "misses": "1000000/s", "upstream": "1000000/s"}
TTL_HEADER = "X-aliyun-ecs-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aliyun-ecs-metadata-token"


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Proxy:
    """A running daemon. `log_path` holds its stderr, `state` its directory, `config` is its file."""

    host: str
    port: int
    process: subprocess.Popen[str]
    log_path: Path
    state: Path
    config: Path

    @cached_property
    def admin(self) -> str:
        """H:P of the monitoring port, where `admin.metrics` is set."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip().removeprefix("admin on http://")

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, timeout: float = 5
    ) -> Reply:
        """One request on a connection of its own."""
        return ask(self.host, self.port, method, path, headers, timeout)

    def get(self, path: str, token: str | None = None) -> Reply:
        return self.request("GET", path, {TOKEN_HEADER: token} if token else None)

    def put_token(self, ttl: int | str = 60) -> Reply:
        return self.request("PUT", "/latest/api/token", {TTL_HEADER: str(ttl)})

    def log(self) -> list[dict[str, Any]]:
        """The lines that are whole by now."""
        return [json.loads(line) for line in self.log_path.read_text().split("\n")[:-1]]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Those lines of one kind."""
        return [line for line in self.log() if line["event"] == name]

    def change(self, **settings: object) -> None:
        """Writes other values of configuration keys into its file."""
        before = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump({**before, **settings}))

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`imds-proxy reload`: what is in the file is in force when this returns, where that can be."""
        words = [sys.executable, "-m", "imds_proxy", "reload", "-c", str(self.config)]
        return subprocess.run(words, capture_output=True, text=True, timeout=20)

    def stop(self) -> int:
        """SIGTERM, and the exit code of the drain."""
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def ask(
    host: str,
    port: int,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    timeout: float = 5,
) -> Reply:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        body = response.read()
        if method == "PUT" and response.status == 200:
            evidence.given.add(body.decode("latin-1"))
        return Reply(response.status, body, {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


@contextmanager
def running_proxy(
    upstream: tuple[str, int],
    settings: dict[str, Any] | None = None,
    state: Path | None = None,
    port: int = 0,
    host: str = "127.0.0.1",
    within: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[Proxy]:
    """Starts `imds-proxy run OPTIONS` and ends it; `settings` are configuration keys, `within` words before
    it."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        config = directory / "config.yaml"
        chosen: dict[str, Any] = {
            "state": str(state or directory / "state"),
            "admin": {"socket": str(directory / "admin.sock")},
            **(settings or {}),
        }
        chosen["limits"] = {**PLENTY, **chosen.get("limits", {})}
        config.write_text(yaml.safe_dump(chosen))
        log_path = directory / "log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [
                    *(*within, sys.executable, "-m", "imds_proxy", "run", "-c", str(config)),
                    *("--listen", f"{host}:{port}", "--upstream", f"{upstream[0]}:{upstream[1]}"),
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        with ending(process):
            try:
                heard_at, _, number = announced(process).rpartition(":")
            except RuntimeError as error:
                raise AssertionError(f"not listening: {str(error)!r} {log_path.read_text()}") from None
            yield Proxy(heard_at, int(number), process, log_path, Path(chosen["state"]), config)
