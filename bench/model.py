#!/usr/bin/env python3
"""What the proxy costs against calls, callers, rules and connections: from measured rows to larger machines.

`model.py build/bench.json` prints a page in Markdown: each coefficient beside the points that it comes from,
then what they say of machines that nobody measured. Linear, since the fast paths are: what a request costs
depends on its kind and not on how many others there are, which the points show or refute.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Point = tuple[float, float]

CPU, MEMORY = "cpu_us_per_request", "rss_mib"
PROXY = "imds-proxy"
BUSY = 0.6  # of a core: beyond that calls wait for each other


@dataclass(frozen=True, slots=True)
class Line:
    """`value = start + slope * x`, by least squares over `points`."""

    points: tuple[Point, ...]
    start: float
    slope: float

    @classmethod
    def through(cls, points: Sequence[Point]) -> Line:
        """Two points at least, at different places."""
        count = len(points)
        middle, height = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
        slope = sum((x - middle) * (y - height) for x, y in points) / sum(
            (x - middle) ** 2 for x, _ in points
        )
        return cls(tuple(points), height - slope * middle, slope)


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU: of a cached answer on an open connection, of one on its own, of a PUT with
    its GET, of a miss. Memory (MiB) at the start, over callers, over connections. CPU over rules and callers.
    """

    hit: float
    connection: float
    pair: float
    miss: float
    fresh: float
    rules: Line
    callers: Line
    caller_memory: Line
    connection_memory: Line


@dataclass(frozen=True, slots=True)
class Machine:
    """`pods` of two programs each. A second and pod: `hits` on open connections, `connects` with one request
    each, `pairs`; `misses` a second in all (the budget bounds them); `idle` open connections of each pod."""

    name: str
    cores: int
    pods: int
    hits: float = 0.0
    connects: float = 0.0
    pairs: float = 0.0
    misses: float = 5.0
    idle: float = 2.0


MACHINES = (
    Machine("4 cores, 10 programs: an SDK's refresh a minute each", 4, 5, pairs=2 / 60),
    Machine("16 cores, 80 pods, each program polls 5 items a second", 16, 80, connects=10.0),
    Machine("96 cores, 500 pods: an SDK's refresh a minute of each program", 96, 500, pairs=2 / 60),
    Machine("96 cores, 500 pods, each program polls 5 items a second", 96, 500, connects=10.0, misses=50.0),
    Machine("the same on open connections", 96, 500, hits=10.0, misses=50.0),
    Machine("96 cores, 500 pods start within 10 s, 50 calls each", 96, 500, connects=5.0, misses=50.0),
)


def costs_of(rows: Sequence[Row]) -> Costs:
    """From the rows of `run.py --json`. Raises ValueError naming the workload that is missing."""
    values = {(row["workload"], row["target"], row["metric"]): float(row["value"]) for row in rows}

    def value(workload: str, metric: str = CPU, target: str = PROXY) -> float:
        try:
            return values[workload, target, metric]
        except KeyError:
            raise ValueError(f"no {metric} of {target!r}: bench/run.py {workload} measures it") from None

    crowds = {"callers-1": 1, "callers-10": 10, "keepalive": 100, "callers-1000": 1000}
    rules = {count: value("rules", target=f"{PROXY}, {count:,} rules") for count in (1, 100, 10_000)}
    connections = {count: value(f"connections-{count}", MEMORY) for count in (1000, 10_000)}
    return Costs(
        hit=value("keepalive"),
        connection=value("connect", target=f"{PROXY}, procfs"),
        pair=value("session"),
        miss=value("miss"),
        fresh=value("start", MEMORY),
        rules=Line.through(list(rules.items())),
        callers=Line.through([(count, value(name)) for name, count in crowds.items()]),
        caller_memory=Line.through([(count, value(name, MEMORY)) for name, count in crowds.items()]),
        connection_memory=Line.through(list(connections.items())),
    )


def load_of(machine: Machine, costs: Costs) -> float:
    """How many cores the proxy uses."""
    pods = machine.pods
    of_pods = machine.hits * costs.hit + machine.connects * costs.connection + machine.pairs * costs.pair
    return (pods * of_pods + machine.misses * costs.miss) / 1e6


def memory_of(machine: Machine, costs: Costs) -> float:
    """MiB: fresh, and what two callers and some connections of each pod add."""
    callers, idle = 2 * machine.pods, machine.idle * machine.pods
    return costs.fresh + callers * costs.caller_memory.slope + idle * costs.connection_memory.slope


def page(costs: Costs) -> str:
    """The whole, in Markdown."""
    return "\n\n".join((_kinds(costs), _lines(costs), _machines(costs))) + "\n"


def _kinds(costs: Costs) -> str:
    kinds = {
        "cached, on an open connection": costs.hit,
        "cached, on a connection of its own": costs.connection,
        "PUT, then GET": costs.pair,
        "not cached": costs.miss,
    }
    return _table(
        ("call", "µs of CPU", "of one core, a second"),
        [(kind, f"{cost:.1f}", f"{1e6 / cost:,.0f}") for kind, cost in kinds.items()],
    )


def _lines(costs: Costs) -> str:
    lines: Mapping[str, tuple[Line, float, str]] = {
        "µs of CPU a request, over rules": (costs.rules, 1000, "a thousand rules"),
        "µs of CPU a request, over callers": (costs.callers, 1000, "a thousand callers"),
        "MiB, over callers": (costs.caller_memory, 1000, "a thousand callers"),
        "MiB, over connections": (costs.connection_memory, 1000, "a thousand connections"),
    }
    return _table(
        ("what", "measured", "slope"),
        [
            (
                what,
                ", ".join(f"{x:,.0f}: {y:.1f}" for x, y in line.points),
                f"{line.slope * unit:+.2f} for {words}",
            )
            for what, (line, unit, words) in lines.items()
        ],
    )


def _machines(costs: Costs) -> str:
    return _table(
        ("machine", "cores used", "of the machine", "`workers`", "MiB"),
        [
            (
                one.name,
                f"{load_of(one, costs):.3f}",
                f"{load_of(one, costs) / one.cores:.2%}",
                str(max(1, -int(-load_of(one, costs) // BUSY))),
                f"{memory_of(one, costs):.0f}",
            )
            for one in MACHINES
        ],
    )


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def main() -> int:
    """Prints the page. Exit code 1 where rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, metavar="FILE", help="what `bench/run.py --json FILE` wrote")
    try:
        print(page(costs_of(json.loads(parser.parse_args().rows.read_text()))), end="")
    except (OSError, ValueError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
