"""Two network namespaces joined by veth: a cloud, whose emulator is the service, and a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imds_proxy.demo.clients import client_environment
from imds_proxy.demo.processes import announced, ending
from netns import run
from proxy import PLENTY, Proxy

SERVICE, SERVICE6 = "100.100.100.200", "fd00:100::100:200"
_HOLD = "import sys; print('ready', flush=True); sys.stdin.read()"


@dataclass(frozen=True)
class Place:
    """A network namespace, held by the process `pid`."""

    pid: int

    def words(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> str:
        return run(*self.words(*command))

    def ip(self, words: str) -> str:
        return self.run("ip", *words.split())

    def nft(self, commands: str, *options: str) -> str:
        return self.run("nft", *options, commands)

    def client(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a client as the demo does; never raises for its exit code."""
        environment = client_environment(Path(), None)
        return subprocess.run(
            self.words(*command), env=environment, capture_output=True, text=True, timeout=timeout
        )

    def everything(self) -> str:
        """All that a redirect could leave behind here."""
        shown = [self.nft("list ruleset")]
        for family in ("-4", "-6"):
            shown += [self.ip(f"{family} {what}") for what in ("addr", "rule", "route show table all")]
        return "\n".join(shown)


@dataclass(frozen=True)
class Lab:
    """`host` has 10.99.0.2 and fd99::2, and its default routes to `cloud`; `control` is the emulator's."""

    cloud: Place
    host: Place
    control: str

    def counters(self) -> dict[str, Any]:
        """What the emulator has counted."""
        answer = self.cloud.run("curl", "-sSf", f"{self.control}/state")
        return dict(json.loads(answer))

    @contextmanager
    def daemon(
        self, *options: str, settings: dict[str, Any] | None = None, environment: dict[str, str] | None = None
    ) -> Iterator[Proxy]:
        """`imds-proxy run OPTIONS` on the host, ready; ended afterwards, if it has not ended by itself."""
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary)
            config = directory / "config.yaml"
            chosen: dict[str, Any] = {
                "listen": ["127.0.0.1:0"],
                "state": str(directory / "state"),
                "admin": {"socket": str(directory / "admin.sock")},
                **(settings or {}),
            }
            chosen["limits"] = {**PLENTY, **chosen.get("limits", {})}
            config.write_text(yaml.safe_dump(chosen))
            log_path = directory / "log"
            with log_path.open("w") as log:
                process = subprocess.Popen(
                    self.host.words(sys.executable, "-m", "imds_proxy", "run", "-c", str(config), *options),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, **(environment or {})},
                )
            with ending(process):
                try:
                    heard_at, _, number = announced(process).rpartition(":")
                except RuntimeError as error:
                    raise AssertionError(f"not listening: {error!r} {log_path.read_text()}") from None
                yield Proxy(heard_at, int(number), process, log_path, Path(chosen["state"]), config)

    def intercept(self, daemon: Proxy, *words: str) -> subprocess.CompletedProcess[str]:
        """`imds-proxy intercept WORDS` for this daemon."""
        return self.host.client(
            sys.executable, "-m", "imds_proxy", "intercept", *words, "-c", str(daemon.config)
        )

    def get(self, path: str = "/latest/meta-data/instance-id", *options: str) -> Heard:
        """One GET from the host with the service's own address, by curl."""
        return heard(self.host, f"http://{SERVICE}{path}", *options)


@dataclass(frozen=True)
class Heard:
    """What curl got: the status (0: no answer), its exit code, seconds, the body."""

    status: int
    exit_code: int
    seconds: float
    body: str


def heard(place: Place, url: str, *options: str) -> Heard:
    form = "\\n%{http_code} %{time_total}"
    done = place.client("curl", "-gsS", "--max-time", "5", "-w", form, *options, url)
    body, _, numbers = done.stdout.rpartition("\n")
    status, seconds = numbers.split()
    return Heard(int(status), done.returncode, float(seconds), body)


@contextmanager
def namespace() -> Iterator[Place]:
    """A network namespace whose `lo` is up."""
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ending(holder):
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "ready\n"
        place = Place(holder.pid)
        place.ip("link set lo up")
        yield place
        holder.stdin.close()


@contextmanager
def cloud_and_host(*emulate: str) -> Iterator[Lab]:
    """`emulate` are options of `imds-proxy emulate`. Needs root."""
    with namespace() as cloud, namespace() as host:
        cloud.ip(f"link add cloud type veth peer name eth0 netns {host.pid}")
        for place, device, number in ((cloud, "cloud", 1), (host, "eth0", 2)):
            place.ip(f"addr add 10.99.0.{number}/24 dev {device}")
            place.ip(f"addr add fd99::{number}/64 dev {device} nodad")
            place.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{device}/accept_dad")
            place.ip(f"link set {device} up")
        cloud.ip(f"addr add {SERVICE}/32 dev lo")
        cloud.ip(f"addr add {SERVICE6}/128 dev lo nodad")
        # Its text is compared before and after.
        while "state UP" not in (shown := host.ip("addr show eth0")) or "inet6 fe80" not in shown:
            time.sleep(0.01)
        host.ip("route add default via 10.99.0.1")
        host.ip("route add default via fd99::1")
        words = [sys.executable, "-m", "imds_proxy", "emulate", "--control", "127.0.0.1:0"]
        words += ["--listen", f"{SERVICE}:80", "--listen", f"[{SERVICE6}]:80", *emulate]
        service = subprocess.Popen(
            cloud.words(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        with ending(service):
            assert service.stdout is not None
            control = ""
            while not control:
                line = service.stdout.readline()
                assert line, "the emulator did not start"
                if line.startswith("control on "):
                    control = line.split()[-1]
            yield Lab(cloud, host, control)
