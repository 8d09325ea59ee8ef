"""The sections of the configuration but for the rules: keys, ranges, defaults, and their documentation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from imds_proxy.config_reader import key
from imds_proxy.config_rules import Flag, RateKind
from imds_proxy.config_values import (
    Address,
    Count,
    Directory,
    Duration,
    Size,
    SocketAddress,
    Word,
    quoted,
)
from imds_proxy.policy.rules import Rate

LogFormat = Literal["auto", "json", "text"]
CONNECTING = SocketAddress(listening=False)

_DAY, _YEAR = 86400.0, 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The real service. Durations in seconds, sizes in bytes."""

    address: Address = field(
        default=Address("100.100.100.200", 80),
        metadata=key(CONNECTING, "Where the real metadata service is."),
    )
    token_ttl: float = field(
        default=21600.0,
        metadata=key(Duration(1, 21600), "Life that the proxy asks for its own token."),
    )
    connect_timeout: float = field(
        default=0.5,
        metadata=key(Duration(0.01, 0.999), "Longest wait for a connection; at most `deadline`."),
    )
    read_timeout: float = field(
        default=5.0,
        metadata=key(Duration(0.1, 60), "Longest wait for bytes of an answer, after the deadline too."),
    )
    deadline: float = field(
        default=0.9,
        metadata=key(
            Duration(0.05, 0.999), "A caller gets its answer, or a 503, within this: SDKs give up after 1s."
        ),
    )
    connections: int = field(
        default=32, metadata=key(Count(1, 1024), "Most connections to the real service at a time.")
    )
    max_response: int = field(
        default=4 * 1024 * 1024,
        metadata=key(Size(1024, 64 * 1024 * 1024), "Largest body taken from the real service."),
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on callers. Durations in seconds, sizes in bytes, rates per second, the rest are counts."""

    hits: Rate = field(
        default=Rate(2000, 4000),
        metadata=key(RateKind(), "Requests of one caller (uid and unit or container)."),
    )
    misses: Rate = field(
        default=Rate(20, 200),
        metadata=key(RateKind(), "Of these, reads that need a call to the real service."),
    )
    upstream: Rate = field(
        default=Rate(50, 100),
        metadata=key(RateKind(), "Calls to the real service, shared fairly by the callers."),
    )
    queue: float = field(
        default=0.5,
        metadata=key(
            Duration(0.01, 0.999), "Longest wait of a call for its turn, then 429 with Retry-After."
        ),
    )
    connections: int = field(
        default=16384,
        metadata=key(Count(1, 1_000_000), "Most connections of callers; then the oldest idle one is closed."),
    )
    connections_per_caller: int = field(
        default=12288,
        metadata=key(Count(1, 1_000_000), "Most connections of one caller; at most `connections`."),
    )
    head: int = field(default=16384, metadata=key(Size(1024, 1024 * 1024), "Largest request head (431)."))
    target: int = field(
        default=2048, metadata=key(Size(256, 65536), "Longest request target (414); less than `head`.")
    )
    head_timeout: float = field(
        default=10.0,
        metadata=key(Duration(0.1, 600), "Longest time from a head's first byte to its last."),
    )
    idle_timeout: float = field(
        default=300.0, metadata=key(Duration(1, 86400), "An idle connection is closed after this.")
    )
    write_timeout: float = field(
        default=30.0,
        metadata=key(Duration(0.1, 600), "A caller that takes no bytes for this long is dropped."),
    )
    drain: float = field(
        default=5.0, metadata=key(Duration(0, 600), "Time for requests in flight when stopping.")
    )


@dataclass(frozen=True, slots=True)
class Log:
    """The log on stderr. Durations in seconds."""

    format: LogFormat = field(
        default="auto",
        metadata=key(Word(get_args(LogFormat)), "auto: text on a terminal, JSON lines elsewhere."),
    )
    summary: float = field(
        default=60.0,
        metadata=key(Duration(1, 86400), "A repeated legacy caller is summed up at most once in this."),
    )


def _runtime_directory() -> Path:
    return Path(os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or "/run/imds-proxy")


class OptionalPort:
    """An `Address` to listen at, or `off`: None."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return f"off, or {SocketAddress(listening=True).allowed}"

    def read(self, text: str, tag: str) -> Address | None:
        """Raises ValueError."""
        if text.lower() == "off":
            return None
        try:
            return SocketAddress(listening=True).read(text, tag)
        except ValueError:
            raise ValueError(f"{quoted(text)} is no address to listen at; write {self.allowed}") from None

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return "off" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Admin:
    """How the running daemon is asked things."""

    socket: Path = field(
        default_factory=lambda: _runtime_directory() / "admin.sock",
        metadata=key(Directory(), "Unix socket of `reload` and `watch`, for root and the daemon's user."),
    )
    metrics: Address | None = field(
        default=None, metadata=key(OptionalPort(), "Where /metrics, /healthz and /readyz are served.")
    )


@dataclass(frozen=True, slots=True)
class Cache:
    """How long answers are served again. Durations in seconds; 0: the service is asked each time.

    Credentials have no time here: they are kept until half an hour before they expire.
    """

    enabled: bool = field(
        default=True, metadata=key(Flag(), "false: the service is asked for every request.")
    )
    entries: int = field(default=4096, metadata=key(Count(16, 1_000_000), "Most answers kept."))
    size: int = field(
        default=16 * 1024 * 1024,
        metadata=key(Size(65536, 1024**3), "Most memory for answers; a quarter of it for one caller."),
    )
    static: float = field(
        default=_DAY, metadata=key(Duration(0, _YEAR), "What is fixed for the boot: instance-id, mac, ...")
    )
    slow: float = field(
        default=60.0, metadata=key(Duration(0, _DAY), "What an operator changes: hostname, vpc-id, ...")
    )
    volatile: float = field(
        default=5.0,
        metadata=key(
            Duration(0, 300), "What is polled: spot termination, addresses, tags; meta-data/all too."
        ),
    )
    listing: float = field(
        default=10.0, metadata=key(Duration(0, 300), "Listings, that of the roles among them.")
    )
    user_data: float = field(default=600.0, metadata=key(Duration(0, _DAY), "user-data and vendor-data."))
    identity: float = field(
        default=60.0, metadata=key(Duration(0, 3600), "Identity documents; with another query another one.")
    )
    missing: float = field(
        default=5.0, metadata=key(Duration(0, 60), "That there is no such item (404), at most.")
    )
    stale: float = field(
        default=_DAY,
        metadata=key(
            Duration(0, _YEAR),
            "How much longer static and slow items are served while the service cannot be asked.",
        ),
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is remembered of callers on disk. Durations in seconds, sizes in bytes."""

    enabled: bool = field(default=True, metadata=key(Flag(), "false: callers are only logged."))
    path: Path = field(
        default=Path("ledger.db"),
        metadata=key(Directory("state"), "The file (SQLite, with -wal and -shm beside it)."),
    )
    keep: float = field(
        default=90 * _DAY, metadata=key(Duration(_DAY, 10 * _YEAR), "What was seen longer ago is forgotten.")
    )
    size: int = field(
        default=64 * 1024 * 1024,
        metadata=key(Size(1024 * 1024, 16 * 1024**3), "Largest file; the oldest counts make room."),
    )

    def below(self, state: Path) -> Path:
        """The file's whole path, where `state` is the state directory."""
        return state / self.path
