"""What the samples say: rows (the machine contract), a Markdown table, the targets, a plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from generator import Sample

Row = dict[str, Any]
METRICS: dict[str, Callable[[Sample], float]] = {
    "cpu_us_per_request": lambda sample: sample.cpu,
    "requests_per_second": lambda sample: sample.rate,
    "p50_us": lambda sample: sample.p50,
    "p99_us": lambda sample: sample.p99,
    "p999_us": lambda sample: sample.p999,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """A target of the project: a quotient of two medians (or their difference) and its limit."""

    text: str
    metric: str
    of: tuple[str, str]  # workload, target
    to: tuple[str, str] | None
    limit: float
    difference: bool = False


PROXY = "imds-proxy"
GOALS = (
    Goal("cached keep-alive / nginx proxy_cache", "cpu_us_per_request", ("keepalive", PROXY),
         ("keepalive", "nginx proxy_cache"), 1.0),
    Goal("PUT and GET / cached GET", "cpu_us_per_request", ("session", PROXY), ("keepalive", PROXY), 2.5),
    Goal("one request a connection, eBPF / nginx proxy_cache", "cpu_us_per_request",
         ("connect", "imds-proxy, eBPF"), ("connect", "nginx proxy_cache"), 1.2),
    Goal("one request a connection, procfs / nginx proxy_cache", "cpu_us_per_request",
         ("connect", "imds-proxy, procfs"), ("connect", "nginx proxy_cache"), 1.6),
    Goal("miss / nginx proxy_pass", "cpu_us_per_request", ("miss", PROXY), ("miss", "nginx proxy_pass"), 2.0),
    Goal("miss: p99 over the service's own, µs", "p99_us", ("miss-latency", PROXY),
         ("miss-latency", "service direct"), 500.0, difference=True),
    Goal("10,000 rules / 1 rule", "cpu_us_per_request", ("rules", "imds-proxy, 10,000 rules"),
         ("rules", "imds-proxy, 1 rules"), 1.05),
    Goal("ready after exec, ms", "ready_ms", ("start", PROXY), None, 250.0),
    Goal("resident after the start, MiB", "rss_mib", ("start", PROXY), None, 40.0),
    Goal("resident with 10,000 connections, MiB", "rss_mib", ("connections-10000", PROXY), None, 120.0),
)  # fmt: skip


def rows(
    samples: Mapping[tuple[str, str], Sequence[Sample]],
    others: Mapping[tuple[str, str, str], Sequence[float]],
) -> list[Row]:
    """Median and spread ((max - min) / median) of each metric, and its ratio to each other target's.

    `others` are values of further metrics by workload, target and metric.
    """
    values = {
        (workload, target, metric): [of(one) for one in taken]
        for (workload, target), taken in samples.items()
        for metric, of in METRICS.items()
    }
    values.update({key: list(taken) for key, taken in others.items()})
    medians = {key: statistics.median(taken) for key, taken in values.items()}
    return [
        {
            "workload": workload,
            "target": target,
            "metric": metric,
            "value": round(medians[workload, target, metric], 2),
            "spread": _spread(taken),
            "ratio_to": {
                other: round(medians[workload, target, metric] / value, 3)
                for (same, other, kind), value in medians.items()
                if same == workload and kind == metric and other != target and value
            },
        }
        for (workload, target, metric), taken in values.items()
    ]


def _spread(taken: Sequence[float]) -> float:
    median = statistics.median(taken)
    return round((max(taken) - min(taken)) / median, 3) if median else 0.0


def table(found: Sequence[Row]) -> str:
    """One line for each workload and target, CPU first, with its ratio to the proxy's."""
    values = {(row["workload"], row["target"], row["metric"]): row for row in found}
    metrics = list(dict.fromkeys(row["metric"] for row in found))
    lines = [
        "| workload | target | " + " | ".join(metrics) + " | CPU of the first / its |",
        "| --- | --- |" + " ---: |" * (len(metrics) + 1),
    ]
    first: dict[str, float] = {}
    for workload, target in dict.fromkeys((row["workload"], row["target"]) for row in found):
        cells = []
        for metric in metrics:
            row = values.get((workload, target, metric))
            cells.append("" if row is None else f"{row['value']:,.1f} ±{row['spread'] / 2:.0%}")
        row = values.get((workload, target, "cpu_us_per_request"))
        ratio = ""
        if row is not None and row["value"]:
            ratio = f"{first.setdefault(workload, row['value']) / row['value']:.2f}"
        lines.append(f"| {workload} | {target} | " + " | ".join([*cells, ratio]) + " |")
    return "\n".join(lines)


def goals(found: Sequence[Row]) -> str:
    """The project's targets that this run tells something of."""
    values = {(row["workload"], row["target"], row["metric"]): row["value"] for row in found}
    lines = ["| goal | measured | limit | met |", "| --- | ---: | ---: | --- |"]
    for goal in GOALS:
        value = values.get((*goal.of, goal.metric))
        base = values.get((*goal.to, goal.metric)) if goal.to is not None else None
        if value is None or (goal.to is not None and not base):
            continue
        if base is not None:
            value = value - base if goal.difference else value / base
        met = "yes" if value <= goal.limit else "**no**"
        lines.append(f"| {goal.text} | {value:.2f} | {goal.limit:g} | {met} |")
    return "\n".join(lines)


def plot(found: Sequence[Row], metric: str = "cpu_us_per_request") -> str:
    """Bars of one metric by workload, as SVG."""
    bars = [row for row in found if row["metric"] == metric and row["value"]]
    groups: dict[str, list[Row]] = {}
    for row in bars:
        groups.setdefault(row["workload"], []).append(row)
    parts, top = [], 40
    for workload, members in groups.items():
        parts.append(f'<text x="10" y="{top}" font-weight="bold">{escape(workload)}</text>')
        largest = max(row["value"] for row in members)
        for row in members:
            top += 20
            width = 420 * row["value"] / largest
            colour = "#c2410c" if row["target"].startswith(PROXY) else "#64748b"
            parts.append(f'<text x="190" y="{top}" text-anchor="end">{escape(row["target"])}</text>')
            parts.append(f'<rect x="200" y="{top - 11}" width="{width:.1f}" height="13" fill="{colour}"/>')
            parts.append(f'<text x="{205 + width:.1f}" y="{top}">{row["value"]:.1f}</text>')
        top += 34
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{top}" font-family="sans-serif"'
    title = f'<text x="10" y="18" font-weight="bold">{escape(metric)} (less is better)</text>'
    return (
        "\n".join(
            [
                f'{head} font-size="12">',
                f'<rect width="720" height="{top}" fill="white"/>',
                title,
                *parts,
                "</svg>",
            ]
        )
        + "\n"
    )
