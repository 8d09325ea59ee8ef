#!/usr/bin/env python3
"""The proxy beside the proxies one would use instead: one interleaved run, one report.

Starts everything itself, on loopback: the measured one on one core, the service and the load on another.
Absolute figures are of this machine; the ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import generator
import peers
import report
from accounting import cpu_seconds, raise_file_limit, resident_mib
from generator import Sample
from peers import Ground, Target
from workloads import WORKLOADS, Workload

START = "start"
# Each run has new callers: what the proxy finds out of new ones once is not of a request.
_WARMUP = 2.0
_FULL, _QUICK = (2.0, 5), (1.0, 1)  # seconds of a sample, samples


class Run:
    """Samples of all workloads so far. `seconds` of one sample, `repeats` of each."""

    def __init__(self, directory: Path, seconds: float, repeats: int) -> None:
        self.directory, self.seconds, self.repeats = directory, seconds, repeats
        self.samples: dict[tuple[str, str], list[Sample]] = {}
        self.others: dict[tuple[str, str, str], list[float]] = {}

    def measure(self, workload: Workload) -> None:
        """All targets of a workload are there at once; the repeats go round them, so that a noisy minute
        meets all alike. A peer that is not installed is said and left out. Raises RuntimeError."""
        with ExitStack() as stack:
            log = stack.enter_context((self.directory / "log").open("a"))
            service = stack.enter_context(peers.upstream(workload.delay, log))
            ground = Ground(self.directory, service, log)
            stack.enter_context(peers.crowd(workload.crowd))
            targets = []
            for start in workload.targets:
                try:
                    targets.append(stack.enter_context(start(ground)))
                except FileNotFoundError as error:
                    print(f"bench: left out, not installed: {error}", file=sys.stderr)
                except RuntimeError as error:
                    if "imds_proxy" in str(error):
                        raise
                    print(f"bench: left out: {error}", file=sys.stderr)
            for target in targets:
                self._warm_up(workload, target)
            for _ in range(self.repeats):
                for target in list(targets):
                    calls = peers.upstream_calls(service)
                    before = cpu_seconds(target.pids[:1]), cpu_seconds(target.pids)
                    try:
                        taken = self._sample(workload, target, self.seconds)
                    except RuntimeError as error:
                        if target.name.startswith(report.PROXY):
                            raise
                        print(f"bench: left out: {error}", file=sys.stderr)
                        targets.remove(target)
                        continue
                    self.samples.setdefault((workload.name, target.name), []).append(taken)
                    calls = peers.upstream_calls(service) - calls
                    self._add(workload.name, target, "upstream_calls", float(calls))
                    if target.name.startswith(report.PROXY) and len(target.pids) > 1:
                        own, all_ = (
                            cpu_seconds(target.pids[:1]) - before[0],
                            cpu_seconds(target.pids) - before[1],
                        )
                        self._add(workload.name, target, "daemon_share", own / all_)
            for target in targets:
                if target.pids:
                    self._add(workload.name, target, "rss_mib", resident_mib(target.pids))

    def start_up(self) -> None:
        """From exec to the first connection that is accepted, one after the other: that of a machine on which
        the proxy was started before, so with its bytecode."""
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(3 * self.repeats):
            with ExitStack() as stack:
                log = stack.enter_context((self.directory / "log").open("a"))
                service = stack.enter_context(peers.upstream(0.0, log))
                ground = Ground(self.directory, service, log)
                for start in (
                    lambda ground: peers.imds_proxy(ground, rule_count=0),
                    lambda ground: peers.nginx(ground, cache=True),
                    peers.haproxy,
                ):
                    with start(ground) as target:
                        self._add(START, target, "ready_ms", target.ready * 1000)
                        self._add(START, target, "rss_mib", resident_mib(target.pids))

    def _sample(self, workload: Workload, target: Target, seconds: float) -> Sample:
        def used() -> float:
            return cpu_seconds(target.pids)

        try:
            return generator.run(workload.load, target.port, seconds, _WARMUP, self.directory, used)
        except RuntimeError as error:
            raise RuntimeError(f"{workload.name}, {target.name}: {error}") from None

    def _warm_up(self, workload: Workload, target: Target) -> None:
        """One caller, then all, until a run is without a failure: caches are filled and callers known."""
        for callers in (1, workload.load.callers):
            load = replace(workload.load, callers=callers, rate=0.0)
            for _ in range(5):
                with suppress(RuntimeError):
                    generator.run(load, target.port, 0.5, 0.0, self.directory, float)
                    break

    def _add(self, workload: str, target: Target, metric: str, value: float) -> None:
        self.others.setdefault((workload, target.name, metric), []).append(value)


def chosen(words: Sequence[str], quick: bool) -> list[str]:
    """The names of the workloads that are asked for."""
    if words:
        return list(words)
    return [*(name for name, one in WORKLOADS.items() if not (quick and one.slow)), START]


def write(found: Sequence[report.Row], json_file: Path | None, plot_file: Path | None, out: IO[str]) -> None:
    """The report on `out` and, where asked for, as files."""
    print(report.table(found), file=out)
    print(f"\n{report.goals(found)}", file=out)
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    if plot_file:
        plot_file.write_text(report.plot(found))


def main() -> int:
    """Measures and prints. Exit code 1 where a target fails or a program is missing, 2 for wrong usage."""
    names = ", ".join([*WORKLOADS, START])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {names}; all unless given")
    parser.add_argument("--quick", action="store_true", help="short runs: a smoke test, not a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also write a plot of CPU per request")
    arguments = parser.parse_args()
    unknown = [one for one in arguments.workloads if one != START and one not in WORKLOADS]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; there are {names}")
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="imds-proxy-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        run = Run(directory, *(_QUICK if arguments.quick else _FULL))
        print("\n".join(peers.versions()))
        print(f"\nnginx:\n{peers.nginx_configuration(Path('/dev/shm/…'), 80, 8080, True)}")
        try:
            for workload in chosen(arguments.workloads, arguments.quick):
                print(f"bench: {workload}", file=sys.stderr)
                run.start_up() if workload == START else run.measure(WORKLOADS[workload])
        except (OSError, RuntimeError) as error:
            print(f"bench: {error}", file=sys.stderr)
            print((directory / "log").read_text()[-2000:], file=sys.stderr)
            return 1
    write(report.rows(run.samples, run.others), arguments.json, arguments.svg, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
