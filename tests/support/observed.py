"""`imds-proxy observe` beside a service at its real address, in a namespace where nothing is redirected."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from imds_proxy.demo.processes import ending
from lab import SERVICE, Lab, metadata_lab


@contextmanager
def observable_lab() -> Iterator[Lab]:
    """The service takes both modes, and its time (milliseconds), as any that is on a network."""
    with metadata_lab("--listen", f"{SERVICE}:80", "--latency", "300", "--role", "demo-role") as lab:
        yield lab


@contextmanager
def observing(lab: Lab, directory: Path) -> Iterator[list[dict[str, Any]]]:
    """Watches meanwhile; the log is in the list afterwards, the ledger in the directory."""
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump({"state": str(directory), "log": {"format": "json"}}))
    events: list[dict[str, Any]] = []
    log = directory / "log"
    with log.open("w") as errors:
        words = lab.words(sys.executable, "-m", "imds_proxy", "observe", "-c", str(config))
        process = subprocess.Popen(words, stderr=errors, text=True)
    with ending(process):
        while "observing" not in log.read_text():
            assert process.poll() is None, log.read_text()
        yield events
        process.terminate()
        assert process.wait(20) == 0
    events += [json.loads(line) for line in log.read_text().splitlines()]
