"""A network namespace in which 100.100.100.200 is real: a service, a proxy before it, any program."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imds_proxy.demo.clients import client_environment
from imds_proxy.demo.processes import announced, ending
from proxy import running_proxy

SERVICE = "100.100.100.200"
_HOLD = f"""
import sys
from imds_proxy.demo.namespace import take_address
take_address("{SERVICE}")
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Lab:
    """The namespace of process `pid`; the service listens at `service` (H:P) in it."""

    pid: int
    service: str

    def words(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a client as the demo does; never raises for its exit code."""
        environment = client_environment(Path(), None)
        return subprocess.run(
            self.words(*command), env=environment, capture_output=True, text=True, timeout=60
        )

    @contextmanager
    def proxy(self, **settings: object) -> Iterator[Sessions]:
        """A fresh daemon at 100.100.100.200:80; when it has ended, the sessions hold what it logged."""
        host, _, port = self.service.rpartition(":")
        with running_proxy((host, int(port)), settings, port=80, host=SERVICE, within=self.words()) as daemon:
            sessions = Sessions(Counter(), [])
            yield sessions
            assert daemon.stop() == 0
            for event in daemon.log():
                sessions.events.append(event)
                if event["event"] == "caller-summary":
                    sessions.kinds.update(event["sessions"])


@dataclass(frozen=True)
class Sessions:
    """Requests by kind of session, and all events, of a daemon that has ended."""

    kinds: Counter[str]
    events: list[dict[str, object]]


@contextmanager
def metadata_lab(*emulate: str) -> Iterator[Lab]:
    """`emulate` are options of `imds-proxy emulate`. Needs root."""
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
        words = [sys.executable, "-m", "imds_proxy", "emulate", "--listen", "127.0.0.1:0", *emulate]
        lab = Lab(holder.pid, "")
        service = subprocess.Popen(
            lab.words(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        with ending(service):
            yield Lab(holder.pid, announced(service))
        holder.stdin.close()
