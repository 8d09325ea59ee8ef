"""A snapshot in the form that Prometheus reads. Names are a contract: dashboards and alerts rest on them.

The library comes with the extra `metrics` and is loaded at the first scrape; nothing here is on the way of a
request.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from imds_proxy import __version__
from imds_proxy.server.snapshot import Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class NoLibrary(Exception):
    """The extra `metrics` is not installed."""


def render(snapshot: Snapshot) -> bytes:
    """The text of one scrape, some 200 lines. Raises NoLibrary."""
    try:
        from prometheus_client import generate_latest
    except ImportError:
        raise NoLibrary from None
    return b"".join((generate_latest(_Once(list(families(snapshot)))), generate_latest(_process())))


class _Once:
    """What the library takes for a registry: something to collect from."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


@lru_cache(maxsize=1)
def _process() -> Any:
    from prometheus_client import CollectorRegistry, ProcessCollector

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def families(now: Snapshot) -> Iterator[Metric]:
    """Every metric, in the order of the page. Counters begin at 0, so that the first increase is one."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    info = Gauge("imds_proxy_build_info", "1, with the version.", labels=("version",))
    info.add_metric((__version__,), 1)
    yield info
    requests = Counter(
        "imds_proxy_requests",
        "Requests by kind of session, class of item and outcome.",
        labels=("session", "item", "outcome"),
    )
    for (session, item, decision), count in now.requests.items():
        requests.add_metric((session.value, item.value, decision.replace("-", "_")), count)
    yield requests
    for name, text, counts in (
        ("imds_proxy_refusals", "Requests refused, by slug.", now.refusals),
        ("imds_proxy_would_refuse", "Requests that enforcement would refuse, by slug.", now.would_refuse),
    ):
        refusals = Counter(name, text, labels=("slug",))
        for slug, count in counts.items():
            refusals.add_metric((slug,), count)
        yield refusals
    upstream = Counter(
        "imds_proxy_upstream_requests", "Calls to the metadata service.", labels=("kind", "outcome")
    )
    for labels, count in now.upstream.items():
        upstream.add_metric(labels, count)
    yield upstream
    throttled = sum(count for (_, outcome), count in now.upstream.items() if outcome == "throttled")
    yield Counter(
        "imds_proxy_upstream_throttled", "Calls that the metadata service throttled.", value=throttled
    )
    yield Gauge(
        "imds_proxy_upstream_up",
        "Whether the metadata service answered last.",
        value=float(now.upstream_answers is True),
    )
    yield Gauge("imds_proxy_upstream_budget", "Calls a second that are let through.", value=now.upstream_rate)
    cache = Counter("imds_proxy_cache", "Reads by what the cache had.", labels=("result",))
    for result, count in (("hit", now.cache_hits), ("miss", now.cache_misses), ("stale", now.cache_stale)):
        cache.add_metric((result,), count)
    yield cache
    yield Gauge("imds_proxy_cache_entries", "Answers kept.", value=now.cache_entries)
    yield Gauge("imds_proxy_cache_bytes", "Memory for answers kept, about.", value=now.cache_bytes)
    if now.credentials_expire is not None:
        yield Gauge(
            "imds_proxy_credentials_expiry_timestamp_seconds",
            "When the first set of credentials that is kept expires.",
            value=now.credentials_expire,
        )
    yield Counter(
        "imds_proxy_callers_unresolved", "Connections whose caller has no name.", value=now.unresolved
    )
    yield Gauge("imds_proxy_connections", "Open connections of callers.", value=now.connections)
    yield Gauge(
        "imds_proxy_legacy_callers",
        "Programs that spoke normal mode since the start.",
        value=now.legacy_callers,
    )
    if now.redirect is not None:
        yield Gauge(
            "imds_proxy_redirect_in_force", "Whether traffic is redirected here.", value=float(now.redirect)
        )
