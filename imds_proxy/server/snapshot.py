"""What the daemon counted, at one moment, as plain values; and whether it is ready.

Decides what is shown to the outside: no secret, and no path or name of a caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imds_proxy.protocol.credentials import credential_times
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import Daemon

DECISIONS = ("allowed", "would-refuse", "refused", "failed")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts since the start, and states now. `credentials_expire` is the earliest end of a set that is kept
    (seconds since 1970, the service's clock). `redirect` is None where none is asked for."""

    requests: Mapping[tuple[Session, ItemClass, str], int]
    refusals: Mapping[str, int]
    would_refuse: Mapping[str, int]
    upstream: Mapping[tuple[str, str], int]
    upstream_answers: bool | None
    upstream_rate: float
    cache_hits: int
    cache_misses: int
    cache_stale: int
    cache_entries: int
    cache_bytes: int
    credentials_expire: float | None
    unresolved: int
    connections: int
    legacy_callers: int
    redirect: bool | None


def snapshot_of(daemon: Daemon, redirect: bool | None) -> Snapshot:
    """The daemon as it is now."""
    events, cache = daemon.events, daemon.shared.service.cache
    requests = {(kind, item, one): 0 for kind in Session for item in ItemClass for one in DECISIONS}
    for (session, item_name, decision), count in events.totals().items():
        requests[session, ItemClass(item_name), decision] += count
    expiries = [
        times.expires
        for stored in cache.kept()
        if stored.item is ItemClass.CREDENTIALS and (times := credential_times(stored.answer.body))
    ]
    return Snapshot(
        requests=requests,
        refusals=dict(events.refusals),
        would_refuse=dict(events.would_refuse),
        upstream=dict(daemon.traffic.counts),
        upstream_answers=daemon.traffic.answers,
        upstream_rate=daemon.gate.rate,
        cache_hits=cache.hits - events.stale,
        cache_misses=cache.misses,
        cache_stale=events.stale,
        cache_entries=len(cache),
        cache_bytes=cache.size,
        credentials_expire=min(expiries, default=None),
        unresolved=daemon.attribution.unresolved,
        connections=len(daemon.register),
        legacy_callers=events.legacy_callers,
        redirect=redirect,
    )


def unready(daemon: Daemon, redirect: bool | None) -> list[str]:
    """Why the daemon is not ready, empty when it is. Asks nobody: a probe does, in the background."""
    reasons = []
    if not daemon.traffic.answers:
        reasons.append(f"the metadata service {daemon.traffic.state}")
    if redirect is False:
        reasons.append("the redirect is not in force")
    return reasons
