#!/usr/bin/env python3
"""What a policy of many rules costs apart from requests: `policy.py [RULES]`, 10,000 unless told.

Seconds to read it, to make rules of it, to look for hidden ones (`imds-proxy check`); what a new kind of
caller costs, for rules of several shapes; what a new process costs where each rule names another file; the
largest resident size.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import peers
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.procfs import Executable
from imds_proxy.config import parse
from imds_proxy.policy.caller import Caller, Identity, Program
from imds_proxy.policy.decision import DecisionMemo, Policy
from imds_proxy.policy.rules import hidden_by
from imds_proxy.server.build import policy_of

_CALLERS = 200
SHAPES: dict[str, Callable[[int], str]] = {
    "a unit and a user each": lambda n: f"caller: {{unit: app-{n}.service, user: app{n % 50}}}",
    "an executable each, by a glob": lambda n: f"caller: {{exe: /opt/*/bin/app-{n}}}",
    "a range of uids each": lambda n: f"caller: {{uid: {100_000 + n * 65_536}-{165_535 + n * 65_536}}}",
    "one user, a path each": lambda n: f"caller: {{user: app0}}, paths: [meta-data/app-{n}/**]",
    "a path each, denied to all": lambda n: f"allow: false, paths: [meta-data/app-{n}/**]",
}


def policy_like(shape: Callable[[int], str], count: int) -> Policy:
    """So many rules of one shape."""
    rows = "".join(f"  - {{name: rule {n}, {shape(n)}}}\n" for n in range(count))
    return policy_of(parse(f"policy:\n  rules:\n{rows}", "rules"))


def callers() -> Iterator[Caller]:
    """Each of another kind."""
    for n in range(_CALLERS):
        program = Program(exe=frozenset({f"/opt/x/bin/app-{n}"}))
        yield Caller(Identity(200_000 + n, unit=f"app-{n}.service"), user=f"app{n % 50}", program=program)


def of_new_callers(policy: Policy) -> list[float]:
    """Seconds of each caller's first look at the rules and its first item."""
    taken = []
    for caller in callers():
        began = time.perf_counter()
        memo = DecisionMemo()
        memo.begin(policy, caller)
        policy.index.first(memo.rules, ("latest", "meta-data", "instance-id"))
        taken.append(time.perf_counter() - began)
    return taken


def of_new_processes(count: int) -> list[float]:
    """Seconds of naming the file of a process, of many one after another, where rules name so many."""
    files = HostFiles(f"/opt/x/bin/app-{n}" for n in range(count))
    taken = []
    for _ in range(_CALLERS * 10):
        began = time.perf_counter()
        files.names_of(Executable("/bin/true", 1, 1))
        taken.append(time.perf_counter() - began)
    return taken


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints the seconds that it took."""
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.2f} s")


def _show(what: str, taken: list[float]) -> None:
    mean, worst = 1e6 * sum(taken) / len(taken), 1e6 * max(taken)
    print(f"{what}: {1e6 * median(taken):.0f} µs (mean {mean:.0f}, worst {worst:.0f})")


def main() -> int:
    """Prints all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", type=int, nargs="?", default=10_000, metavar="RULES")
    count = parser.parse_args().rules
    text = peers.rules(count)
    print(f"{count:,} rules, {len(text) / 2**20:.1f} MiB, as the suite writes them")
    with timed("read"):
        config = parse(text, "rules")
    with timed("made rules of"):
        policy = policy_of(config)
    with timed("looked for hidden ones"):
        hidden_by(policy.rules)
    print(f"resident at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    for name, shape in SHAPES.items():
        _show(f"a new kind of caller, {name}", of_new_callers(policy_like(shape, count)))
    _show("the file of a new process, a path each", of_new_processes(count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
