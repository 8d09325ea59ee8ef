"""A machine of its own under a real systemd: namespaces, a throw-away file system, a network card or none.

Needs root, and systemd on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from imds_proxy.callers.cgroupfs import MOUNTS

_BOOT = Path(__file__).with_name("machine_boot.py")
_CPU = Path("/sys/fs/cgroup/cpu")  # of v1
_CLIENTS = "clients"  # a cgroup of what is in no unit: beside groups there may be no processes
_ENTER = 'for group in $0; do echo $$ > "$group/cgroup.procs" || exit; done; exec "$@"'


@dataclass(frozen=True)
class Plan:
    """What the machine is laid from: `lower`, a root file system, read only to it; `files`, texts by path
    (scripts become executable); `binds`, directories of this machine by their path there."""

    lower: str = "/"
    files: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"


@dataclass(frozen=True)
class Processors:
    """Seconds of processors used: by the machine, by all; and when that was (CLOCK_MONOTONIC)."""

    own: float
    everybody: float
    at: float

    def others_since(self, before: Processors) -> float:
        """Which share of all processors others have used."""
        used = (self.everybody - before.everybody) - (self.own - before.own)
        return used / ((self.at - before.at) * (os.cpu_count() or 1))


@dataclass(frozen=True)
class Machine:
    """A running machine; `pid` is its first process as this machine counts, `groups` its cgroups."""

    pid: int
    groups: tuple[Path, ...] = ()

    def beside(self, *command: str) -> list[str]:
        """The words that run a command of this machine in that machine's cgroups, not on it."""
        return _within((self.groups[0] / _CLIENTS, *self.groups[1:]), *command)

    def processor_time(self) -> Processors:
        """What it and what all have used by now."""
        lines = (self.groups[0] / "cpu.stat").read_text().splitlines()
        own = next(int(line.split()[1]) for line in lines if line.startswith("usage_usec"))
        busy = [int(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        all_of_them = sum(busy) - busy[3] - busy[4]  # but idle and iowait
        return Processors(own / 1e6, all_of_them / os.sysconf("SC_CLK_TCK"), time.monotonic())

    def inside(self, *command: str) -> list[str]:
        """The words that run a command on it, as root, in its cgroups but in none of its units."""
        return self.beside(*self.words(*command))

    def words(self, *command: str) -> list[str]:
        """The words that run a command on it, as root, outside of its units."""
        return ["nsenter", f"--target={self.pid}", "-m", "-u", "-n", "-p", "--", *command]

    def network(self, *command: str) -> list[str]:
        """The words that run a command of this machine in its network namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def try_run(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*command), capture_output=True, text=True, timeout=timeout, cwd="/")

    def run(self, *command: str, timeout: float = 30) -> str:
        """Its standard output; AssertionError, with what it said, where it fails."""
        done = self.try_run(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def main_pid(self, unit: str) -> int:
        """The main process of a unit, by its number on the machine itself; 0 for none."""
        return int(self.show(unit, "MainPID"))

    def outer_pid(self, inner: int) -> int:
        """A process of the machine, by its number here. Raises LookupError."""
        ours = str(Path(f"/proc/{self.pid}/ns/pid").readlink())
        for path in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if path.name.isdigit() and str((path / "ns/pid").readlink()) == ours:
                    line = next(
                        one for one in (path / "status").read_text().splitlines() if one.startswith("NSpid:")
                    )
                    if int(line.split()[-1]) == inner:
                        return int(path.name)
        raise LookupError(inner)

    def journal(self, unit: str, *options: str) -> str:
        return self.run("journalctl", "--no-pager", "--unit", unit, "--output=cat", *options)

    def journaled(self, unit: str) -> list[dict[str, object]]:
        """The JSON lines that a unit logged."""
        lines = self.journal(unit).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextmanager
def systemd_machine(plan: Plan) -> Iterator[Machine]:
    """Boots a machine and, whatever happens, ends every process of it."""
    name = f"imds-machine-{os.getpid()}-{time.monotonic_ns()}"
    with _cgroups(name) as groups, _scratch() as scratch:
        words = ["unshare", "--cgroup", "--pid", "--fork", "--mount", "--net", "--uts", "--kill-child"]
        words += ["--mount-proc", sys.executable, str(_BOOT), str(scratch), json.dumps(asdict(plan))]
        log = scratch.with_suffix(".log")
        with log.open("w") as out:
            shell = subprocess.Popen(
                _within(groups, *words), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            wait_for(lambda: shell.poll() is not None or _child(shell.pid) is not None)
            pid = _child(shell.pid)
            assert pid is not None, log.read_text()
            machine = Machine(pid, groups)
            wait_for(lambda: _booted(machine) or shell.poll() is not None, 30)
            assert shell.poll() is None, log.read_text()
            yield machine
        finally:
            first = _child(shell.pid)
            if first is not None:
                os.kill(first, 9)  # systemd as pid 1 takes no SIGTERM; all its processes go with it
            shell.kill()
            shell.wait(30)
            log.unlink()


def _within(groups: Sequence[Path], *command: str) -> list[str]:
    return ["sh", "-c", _ENTER, " ".join(map(str, groups)), *command]


def wait_for(condition: Callable[[], bool], seconds: float = 10.0, what: str = "it") -> float:
    """Waits for the thing; how long it took. AssertionError after `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} did not happen in {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - began


def _booted(machine: Machine) -> bool:
    if not Path(f"/proc/{machine.pid}/root/run/systemd/private").exists():
        return False
    return machine.try_run("systemctl", "is-active", "machine.target").returncode == 0


def _child(pid: int) -> int | None:
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    return None


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="imds-machine-") as directory:
        scratch = Path(directory) / "machine"
        scratch.mkdir()
        yield scratch


@contextmanager
def _cgroups(name: str) -> Iterator[tuple[Path, ...]]:
    """Where the machine's units have their cgroups; and one that gives it the right of way: how long things
    take on it is not to depend on what else this machine does."""
    mount = next(Path(one) for one in MOUNTS if Path(one, "cgroup.controllers").exists())
    groups = [mount / name]
    (groups[0] / _CLIENTS).mkdir(parents=True)
    with suppress(OSError):
        (_CPU / name).mkdir()
        groups.append(_CPU / name)
        (_CPU / name / "cpu.shares").write_text("200000")
    try:
        yield tuple(groups)
    finally:
        wait_for(lambda: all(_removed(group) for group in groups), 20, "the end of the machine")


def _removed(group: Path) -> bool:
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
    return not group.exists()
