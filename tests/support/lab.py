"""A network namespace in which 100.100.100.200 is real: a service, a proxy before it, any program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from imds_proxy.demo.processes import announced, ending

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
    directory: Path

    def words(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a client, without proxy variables; never raises for its exit code."""
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return subprocess.run(
            self.words(*command), env={**kept, **environment}, capture_output=True, text=True, timeout=60
        )

    @contextmanager
    def proxy(self, **settings: object) -> Iterator[Sessions]:
        """A fresh daemon at 100.100.100.200:80; when it has ended, the sessions hold what it logged."""
        with tempfile.TemporaryDirectory() as temporary:
            config, log = Path(temporary) / "config.yaml", Path(temporary) / "log"
            config.write_text(yaml.safe_dump({"state": f"{temporary}/state", **settings}))
            sessions = Sessions(Counter(), [])
            with log.open("w") as errors:
                daemon = subprocess.Popen(
                    self.words(
                        *(sys.executable, "-m", "imds_proxy", "run", "-c", str(config)),
                        *("--listen", f"{SERVICE}:80", "--upstream", self.service),
                    ),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            with ending(daemon):
                assert announced(daemon) == f"{SERVICE}:80"
                yield sessions
            for line in log.read_text().splitlines():
                event = json.loads(line)
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
    with tempfile.TemporaryDirectory() as temporary:
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
            lab = Lab(holder.pid, "", Path(temporary))
            service = subprocess.Popen(
                lab.words(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            with ending(service):
                yield Lab(holder.pid, announced(service), Path(temporary))
            holder.stdin.close()
