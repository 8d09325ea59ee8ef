"""A machine that runs the shipped unit, before a cloud in which 100.100.100.200 is the emulator's.

Needs root, systemd, iproute2 on this machine.
"""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

import imds_proxy
from imds_proxy.demo.processes import announced, ending
from machine import Machine, Plan, systemd_machine, wait_for

UNIT = "imds-proxy.service"
SERVICE = "100.100.100.200"
MAC = "/latest/meta-data/mac"
CHECKOUT = Path(__file__).parent.parent.parent
UNITS = CHECKOUT / "packaging/systemd"
SUPPORT = Path(__file__).parent

PYTHON = f"/opt/python/bin/{Path(sys.executable).resolve().name}"
VARIABLES = "PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/package:/opt/site"
_LAUNCHER = f"""#!/bin/sh
export {VARIABLES}
exec {PYTHON} -B -m imds_proxy "$@"
"""
_CLOUD = f"""
ip link set lo up
ip address add {SERVICE}/32 dev lo
exec {sys.executable} -m imds_proxy emulate --listen {SERVICE}:80 --control 127.0.0.1:0 --http-tokens required
"""
_WIRES = (
    "link add cloud type veth peer name host netns {cloud}",
    "address add 10.99.0.1/30 dev cloud",
    "link set cloud up",
    "route add default via 10.99.0.2",
)
_FAR_WIRES = ("address add 10.99.0.2/30 dev host", "link set host up")


def unit_plan(config: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Plan:
    """A machine with the shipped unit and this version of the program; `files` are more, by path.

    Interpreter and packages lie where the unit may read: a developer's may be in a home directory.
    """
    return Plan(
        files={
            "/usr/bin/imds-proxy": _LAUNCHER,
            "/etc/imds-proxy/config.yaml": yaml.safe_dump(dict(config)),
            f"/usr/lib/systemd/system/{UNIT}": (UNITS / UNIT).read_text(),
            "/usr/lib/sysusers.d/imds-proxy.conf": (UNITS / "imds-proxy.sysusers").read_text(),
            **(files or {}),
        },
        binds={
            "/opt/python": sys.base_prefix,
            "/opt/site": site.getsitepackages()[0],
            "/opt/package": compiled_package().name,
            "/opt/support": str(SUPPORT),
        },
    )


@lru_cache(maxsize=1)
def compiled_package() -> tempfile.TemporaryDirectory[str]:
    """The program with its byte code, as an installation has it."""
    directory = tempfile.TemporaryDirectory(prefix="imds-package-")
    copy = Path(directory.name) / "imds_proxy"
    leftovers = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(imds_proxy.__file__).parent, copy, ignore=leftovers)
    # The machine must not write what it runs, so what it would find stale it would compile at each start.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    assert compileall.compile_dir(copy, quiet=1, invalidation_mode=mode)
    Path(directory.name).chmod(0o755)
    return directory


@dataclass(frozen=True)
class Cloud:
    """The network in which the service is; `pid` is the emulator's process."""

    pid: int
    control: str

    def state(self) -> dict[str, Any]:
        """The emulator's counters and settings."""
        return self._asked("GET")

    def patch(self, **settings: object) -> None:
        self._asked("PATCH", json.dumps(settings))

    def _asked(self, method: str, body: str = "") -> dict[str, Any]:
        words = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "curl", "-s", "-X", method, "-d", body]
        done = subprocess.run(
            [*words, f"http://{self.control}/state"], capture_output=True, text=True, check=True, timeout=10
        )
        state: dict[str, Any] = json.loads(done.stdout)
        return state


@dataclass(frozen=True)
class UnitMachine:
    """The machine, its cloud, and what is done on it again and again."""

    machine: Machine
    cloud: Cloud

    def python(self, *words: str) -> list[str]:
        """The words that run a program of tests/support on the machine."""
        return self.machine.inside("env", *f"{VARIABLES}:/opt/support".split(), PYTHON, "-B", *words)

    def start(self) -> None:
        self.machine.run("systemctl", "start", UNIT)

    def ask(self, address: str = SERVICE, *options: str) -> str:
        """The status of one call of curl to an address; `000` where there is no answer."""
        words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5", *options]
        return self.said(*words, "-H", f"Host: {SERVICE}", f"http://{address}{MAC}")

    def said(self, *words: str) -> str:
        """What a program on the machine says, whatever its exit code."""
        words = tuple(self.machine.inside(*words))
        return subprocess.run(words, capture_output=True, text=True, timeout=30, cwd="/").stdout

    def kill(self, signal: str = "KILL") -> None:
        """A signal for the daemon alone."""
        self.machine.run("systemctl", "kill", f"--signal={signal}", "--kill-who=main", UNIT)

    def serving(self) -> bool:
        return self.machine.show(UNIT, "SubState") == "running"


@contextmanager
def unit_machine(config: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Iterator[UnitMachine]:
    """A booted machine on which the unit is installed and not yet started."""
    with machine_before_cloud(unit_plan(config, files)) as it:
        wait_for(lambda: it.machine.try_run("id", "-u", "imds-proxy").returncode == 0, 10, "the user")
        yield it


@contextmanager
def machine_before_cloud(plan: Plan) -> Iterator[UnitMachine]:
    """A booted machine with a way to the service."""
    with systemd_machine(plan) as machine, _cloud(machine) as cloud:
        for wire in _WIRES:
            _ip(machine.pid, wire.format(cloud=cloud.pid))
        for wire in _FAR_WIRES:
            _ip(cloud.pid, wire)
        yield UnitMachine(machine, cloud)


@contextmanager
def _cloud(machine: Machine) -> Iterator[Cloud]:
    emulator = subprocess.Popen(
        machine.beside("unshare", "--net", "sh", "-c", _CLOUD),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(imds_proxy.__file__).parent.parent)},
    )
    with ending(emulator):
        announced(emulator)
        assert emulator.stdout is not None
        control = emulator.stdout.readline().split("http://")[1].strip()
        yield Cloud(emulator.pid, control)


def _ip(pid: int, words: str) -> None:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words.split()]
    subprocess.run(command, check=True, capture_output=True, timeout=10)
