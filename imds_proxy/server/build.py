"""The daemon's parts, put together from a configuration. Decides nothing at run time."""

from __future__ import annotations

import ipaddress
import math
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from imds_proxy import __version__
from imds_proxy.config import Config
from imds_proxy.errors import UPSTREAM_BROKEN, Refused
from imds_proxy.ledger.tally import Tally
from imds_proxy.policy.decision import Policy
from imds_proxy.policy.freshness import Freshness
from imds_proxy.policy.limits import CallerLimits
from imds_proxy.policy.matching import is_glob
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.policy.tokenbook import ForeignTokens, TokenBook
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import PROFILES, ItemClass, Profile
from imds_proxy.protocol.request import HeadRules
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.protocol.tokens import Seal
from imds_proxy.server.attribution import BoundedAttribution
from imds_proxy.server.clientdesk import ClientDesk
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.connections import ConnectionRegister
from imds_proxy.server.events import RequestEvents, facts_of
from imds_proxy.server.log import Log
from imds_proxy.server.memory import Memory
from imds_proxy.server.naming import resolver_of, watch_of
from imds_proxy.server.service import Service
from imds_proxy.server.shared import Shared, Times
from imds_proxy.server.state import SECRET_BYTES, boot_id, seal_secret
from imds_proxy.server.tokendesk import ForeignDesk, RealTokens, SealedTokens, TokenMaker
from imds_proxy.upstream.cache import AnswerCache, CacheRules
from imds_proxy.upstream.gate import UpstreamGate
from imds_proxy.upstream.pool import Pool, PoolLimits
from imds_proxy.upstream.probe import ServiceProbe
from imds_proxy.upstream.reader import ServiceReader
from imds_proxy.upstream.tokens import TokenIssuer, TokenKeeper, TokenService
from imds_proxy.upstream.traffic import Traffic

if TYPE_CHECKING:
    from imds_proxy.kubernetes.watch import PodWatch

# Seconds since boot, suspension included: the clock of every lease and deadline.
boottime: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Daemon:
    """The parts that the life cycle handles."""

    shared: Shared
    register: ConnectionRegister[CallerConnection]
    attribution: BoundedAttribution
    pool: Pool
    gate: UpstreamGate
    foreign: ForeignDesk
    tokens: TokenMaker
    book: TokenBook
    events: RequestEvents
    traffic: Traffic
    probe: ServiceProbe
    pods: PodWatch | None


def build(config: Config, log: Log, clock: Callable[[], float] = boottime) -> Daemon:
    """The daemon for a configuration; opens the netlink socket, loads the eBPF programs, and reads or makes
    the seal's secret. Raises OSError where `attribution: ebpf` cannot be had."""
    profile = PROFILES[config.provider]
    classifier = ItemClassifier(profile)
    target = canonical_target(profile.instance_id_path.encode("ascii"))
    instance_id = (target, classifier.classify(target))
    upstream = config.upstream
    jitter = random.SystemRandom().random
    limits = PoolLimits(
        connections=upstream.connections,
        connect_timeout=upstream.connect_timeout,
        read_timeout=upstream.read_timeout,
        patience=upstream.deadline,
        max_body=upstream.max_response,
    )
    headers = (
        (b"Host", _host_header(upstream.address.host, upstream.address.port, profile)),
        (b"User-Agent", f"imds-proxy/{__version__}".encode("ascii")),
    )
    gate = UpstreamGate(config.limits.upstream, config.limits.queue, clock)
    traffic = Traffic(clock)
    pool = Pool(upstream.address.host, upstream.address.port, limits, clock, gate, traffic)
    token_service = TokenService(pool, profile, headers, upstream.deadline, clock, jitter)
    keeper = TokenKeeper(token_service, int(upstream.token_ttl), clock, jitter)
    reader = ServiceReader(pool, keeper, profile, headers)
    book = TokenBook()
    tokens: TokenMaker
    if config.tokens == "sealed":
        secret = _seal_secret(config.state, log)
        tokens = SealedTokens(partial(_make_seal, reader, instance_id, secret), clock)
    else:
        tokens = RealTokens(TokenIssuer(token_service, profile, clock), book)
    probe = ServiceProbe(reader, gate, instance_id, upstream.deadline, clock)
    foreign = ForeignDesk(reader, ForeignTokens(), instance_id, clock)
    events = RequestEvents(log, Tally(), clock, ClientDesk(log, facts_of))
    cache = AnswerCache(reader, gate, cache_rules(config), clock, jitter)
    caller_limits = CallerLimits(config.limits.hits, config.limits.misses)
    service = Service(
        policy_of(config),
        profile,
        reader,
        tokens,
        foreign,
        events,
        caller_limits,
        cache,
        upstream.deadline,
        clock,
    )
    register = ConnectionRegister[CallerConnection](
        config.limits.connections, config.limits.connections_per_caller
    )
    pods = watch_of(config, log)
    attribution = BoundedAttribution(resolver_of(config, pods[0] if pods else None, log))
    if pods:
        pods[0].on_change(partial(look_again, attribution, register))
    attribution.watch(*watched_by(service.policy))
    shared = Shared(
        rules=HeadRules(profile, classifier, config.limits.head, config.limits.target),
        service=service,
        attribution=attribution,
        register=register,
        memory=Memory(),
        times=_times(config),
        hosts=_hosts_of(profile, tuple(config.hosts)),
        clock=clock,
    )
    return Daemon(
        *(shared, register, attribution, pool, gate, foreign, tokens, book, events, traffic, probe),
        pods and pods[1],
    )


def look_again(attribution: BoundedAttribution, register: ConnectionRegister[CallerConnection]) -> None:
    """What is known of pods has changed: callers are named again, those of open connections too."""
    attribution.look_again()
    for connection in register:
        connection.name_again()


def apply(daemon: Daemon, config: Config, policy: Policy) -> Daemon:
    """The daemon with another configuration in force, all but what `needs_restart` names. `policy` is that of
    the configuration (`policy_of`, which may take a second and is not for the event loop).

    Connections stay open: rules and rates count from their next request, limits of a connection from the
    next connection on.
    """
    limits, profile = config.limits, PROFILES[config.provider]
    daemon.attribution.watch(*watched_by(policy))
    daemon.shared.service.policy = policy
    daemon.shared.service.limits.change(limits.hits, limits.misses)
    daemon.shared.service.cache.change(cache_rules(config))
    daemon.gate.change(limits.upstream, limits.queue)
    daemon.register.change(limits.connections, limits.connections_per_caller)
    shared = replace(
        daemon.shared,
        rules=replace(daemon.shared.rules, max_head=limits.head, max_target=limits.target),
        memory=daemon.shared.memory.renewed(),
        times=_times(config),
        hosts=_hosts_of(profile, tuple(config.hosts)),
    )
    return replace(daemon, shared=shared)


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys that differ and are read at the start only."""
    names = (
        "provider",
        "listen",
        "hop_limit",
        "upstream",
        "tokens",
        "state",
        "user",
        "attribution",
        "workers",
        "pods",
        "log",
        "intercept",
        "ledger",
        "admin",
    )
    return [name for name in names if getattr(old, name) != getattr(new, name)]


def cache_rules(config: Config) -> CacheRules:
    """The cache's form of a configuration."""
    keys = config.cache
    by_class = {
        ItemClass.STATIC: keys.static,
        ItemClass.SLOW: keys.slow,
        ItemClass.VOLATILE: keys.volatile,
        ItemClass.LISTING: keys.listing,
        ItemClass.AGGREGATE: min(keys.static, keys.slow, keys.volatile, keys.listing),
        ItemClass.UNKNOWN: min(keys.volatile, keys.listing),
        ItemClass.USER_DATA: keys.user_data,
        ItemClass.IDENTITY: keys.identity,
        ItemClass.CREDENTIALS: math.inf,  # until they end; this is for a role that is missing
    }
    freshness = Freshness(by_class, keys.missing, keys.stale)
    return CacheRules(keys.enabled, freshness, keys.entries, keys.size)


def policy_of(config: Config) -> Policy:
    """The policy room's form of a configuration."""
    profile = PROFILES[config.provider]
    return Policy(
        mode=config.mode,
        enforcing=config.policy.enforcement == "enforce",
        sensitive=SensitivePaths(config.policy.sensitive),
        rules=tuple(keys.rule(profile) for keys in config.policy.rules),
        default_allow=config.policy.default == "allow",
        roots=profile.roots,
    )


def watched_by(policy: Policy) -> tuple[frozenset[str], bool]:
    """The executables that rules name without a wildcard, and whether one asks for a SHA-256."""
    paths = {
        path
        for rule in policy.rules
        for path in (*rule.caller.patterns("exe"), *rule.caller.patterns("parent"))
        if not is_glob(path)
    }
    return frozenset(paths), any(rule.caller.patterns("sha256") for rule in policy.rules)


def _times(config: Config) -> Times:
    limits = config.limits
    return Times(limits.head_timeout, limits.idle_timeout, limits.write_timeout)


def _seal_secret(state: Path, log: Log) -> bytes:
    """The machine's secret; one for this run only where the state directory is not usable, said once."""
    try:
        return seal_secret(state)
    except (OSError, ValueError) as error:
        log.event("state-unusable", "sealed tokens will end with this run of the proxy", detail=str(error))
        return secrets.token_bytes(SECRET_BYTES)


async def _make_seal(reader: ServiceReader, instance_id: tuple[Target, ItemClass], secret: bytes) -> Seal:
    answer = await reader.read(*instance_id, lambda _: False)
    if answer.status != 200:
        raise Refused(UPSTREAM_BROKEN, f"the instance id was answered {answer.status}")
    return Seal.derive(secret, boot_id(), answer.body.decode("latin-1").strip())


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_header(host: str, port: int, profile: Profile) -> bytes:
    text = _bracketed(host)
    return (text if port == profile.port else f"{text}:{port}").encode("ascii")


def _hosts_of(profile: Profile, extra: tuple[str, ...]) -> Callable[[object], frozenset[bytes]]:
    """The Host values that a connection may carry: the service's, its own address, configured ones. What is
    returned is asked with the connection's own end as the event loop gives it, which may be nothing."""
    of_end = lru_cache(maxsize=64)(partial(_hosts, profile, extra))

    def hosts(local: object) -> frozenset[bytes]:
        return of_end(local[:2] if isinstance(local, tuple) and len(local) >= 2 else None)

    return hosts


def _hosts(profile: Profile, extra: tuple[str, ...], local: tuple[str, int] | None) -> frozenset[bytes]:
    names = [(address, profile.port) for address in profile.addresses]
    if local is not None:
        address = ipaddress.ip_address(local[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        names.append((str(mapped or address), local[1]))
    hosts = {name.lower() for name in extra}
    for name, port in names:
        hosts.add(f"{_bracketed(name)}:{port}")
        if port == profile.port:  # the port that no port means: HTTP's own
            hosts.add(_bracketed(name))
    return frozenset(host.encode("ascii") for host in hosts)
