"""What is asked of whom: each workload is a load and the targets that get it, in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
from generator import Load
from peers import Ground, Target

Start = Callable[[Ground], AbstractContextManager[Target]]

_proxy: Start = peers.imds_proxy
_cache: Start = partial(peers.nginx, cache=True)
_pass: Start = partial(peers.nginx, cache=False)
_ebpf: Start = partial(peers.imds_proxy, name="imds-proxy, eBPF", attribution="ebpf")
_procfs: Start = partial(peers.imds_proxy, name="imds-proxy, procfs", attribution="procfs")
_unnamed: Start = partial(
    peers.imds_proxy,
    name="imds-proxy, nobody named",
    attribution="procfs",
    program=(str(Path(__file__).with_name("unattributed.py")),),
)
_crewed: Start = partial(peers.imds_proxy, name="imds-proxy, 2 workers", workers=2)
_uncached: Start = partial(peers.imds_proxy, cache=False)
_MIXED = (_proxy, _cache, peers.haproxy, peers.floor, peers.aiohttp, peers.mitmproxy)


def _with_rules(count: int) -> Start:
    return partial(peers.imds_proxy, name=f"imds-proxy, {count:,} rules", rule_count=count)


@dataclass(frozen=True, slots=True)
class Workload:
    """`delay` of the service in milliseconds; `crowd`: idle processes on the machine meanwhile; `slow`: left
    out of a quick run's default selection."""

    name: str
    about: str
    load: Load
    targets: Sequence[Start]
    delay: float = 0.0
    crowd: int = 0
    slow: bool = False


WORKLOADS = {
    one.name: one
    for one in (
        Workload("keepalive", "100 callers, one connection each, 200 distinct heads, cached", Load(), _MIXED),
        Workload(
            "connect",
            "one connection for each request (curl, most SDKs), 100 callers, cached",
            Load("once"),
            (_ebpf, _procfs, _cache, peers.haproxy, peers.floor, peers.aiohttp, peers.mitmproxy),
        ),
        *(
            Workload(
                f"attribution-{crowd}" if crowd else "attribution",
                "one connection for each request: callers that are named, beside the same with nobody named"
                + (f", {crowd:,} idle processes on the machine" if crowd else ""),
                Load("once", callers=16),
                (_ebpf, _procfs, _unnamed),
                crowd=crowd,
            )
            for crowd in (0, 2000)
        ),
        Workload(
            "session",
            "v2: each GET with a PUT of its own before it (the SDKs' habit)",
            Load("pair"),
            (_proxy,),
        ),
        Workload(
            "workers",
            "cached keep-alive as above, by the daemon alone and by two workers beside it, all on one core",
            Load(),
            (_proxy, _crewed),
        ),
        Workload(
            "workers-connect",
            "the same, one connection for each request",
            Load("once"),
            (_proxy, _crewed),
        ),
        Workload(
            "latency",
            "cached, 2,000 requests a second whatever the answers do: latency from when each was due",
            Load(rate=2000),
            (_proxy, _cache, peers.haproxy, peers.floor),
        ),
        Workload(
            "miss",
            "nothing is cached, the service takes 1 ms; 100 callers with one connection and 20 items each",
            Load(distinct=2000, misses="own"),
            (_uncached, _pass, peers.aiohttp, peers.mitmproxy),
            delay=1.0,
        ),
        Workload(
            "miss-new",
            "the same, each request for an item that nobody has asked for, so that its head is new too",
            Load(distinct=20, misses="new"),
            (_uncached, _pass),
            delay=1.0,
        ),
        Workload(
            "miss-latency",
            "nothing is cached, 300 requests a second of 16 callers: latency from when each was due",
            Load(callers=16, rate=300, distinct=320, misses="own"),
            (_uncached, _pass, peers.direct),
            delay=1.0,
        ),
        Workload(
            "rules",
            "policies of 1, 100 and 10,000 rules, cached",
            Load(callers=16),
            tuple(_with_rules(count) for count in (1, 100, 10_000)),
        ),
        *(
            Workload(
                f"callers-{count}",
                f"{count:,} distinct callers, cached",
                Load(callers=count),
                (_proxy, _cache),
            )
            for count in (1, 10, 1000)
        ),
        *(
            Workload(
                f"connections-{count}",
                f"{count:,} connections of 10 callers, 2,000 requests a second among them, cached",
                Load(callers=10, connections=count // 10, rate=2000),
                (_proxy, _cache),
                slow=count > 1000,
            )
            for count in (1000, 10_000)
        ),
        Workload(
            "refresh",
            "an SDK's refresh: PUT, then a GET with that token, 200 a second of 100 callers",
            Load("pair", rate=200),
            (_proxy, peers.direct),
        ),
    )
}
