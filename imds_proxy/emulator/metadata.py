"""The service itself: what each request is answered, and what a setting changes about it.

Knows no socket and no HTTP framing; the two clocks are given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imds_proxy.emulator import identity
from imds_proxy.emulator.answers import Answer, error
from imds_proxy.emulator.counters import Counters
from imds_proxy.emulator.credentials import Issuer
from imds_proxy.emulator.items import ITEMS
from imds_proxy.emulator.settings import Settings, as_json, merged
from imds_proxy.emulator.throttle import Bucket
from imds_proxy.emulator.tokens import TokenStore, parse_ttl
from imds_proxy.emulator.tree import Leaf, Tree, locate

TOKEN_PATH = "/latest/api/token"  # noqa: S105  # a path, no secret
_ALL = "meta-data/all"
_READS = ("GET", "HEAD")
_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly from the first few on


@dataclass(frozen=True, slots=True)
class Request:
    """What decides an answer. `path` and `query` as they came; `token` empty for none; `ttl` as it came;
    `forwarded` for a request with X-Forwarded-For."""

    method: str
    path: str
    query: str = ""
    token: str = ""
    ttl: str | None = None
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a request fares before and while it is answered: a delay in seconds, a fault (settings.FAULTS)."""

    delay: float
    fault: str | None


class MetadataService:
    """One emulated service. Threads may use it at will.

    `tokens` and `issuer` may be those of an earlier service, which then has only been restarted.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        tokens: TokenStore | None = None,
        issuer: Issuer | None = None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._fault_debt = self._tail_debt = self._spread = 0.0
        self.settings = settings or Settings()
        self.counters = Counters()
        self.tokens = tokens or TokenStore()
        self.issuer = issuer or Issuer(self.now())
        self._tree = self._grow(self.settings)
        self._bucket = _bucket(self.settings)

    def now(self) -> float:
        """The service's own clock, Unix seconds."""
        return self._wall() + self.settings.clock_offset

    def patch(self, changes: Mapping[str, object]) -> None:
        """Applies a JSON merge patch to the settings, whole or not at all. Raises SettingsError."""
        with self._lock:
            old, new = self.settings, merged(self.settings, changes)
            self._tree = self._grow(new)
            if (old.throttle, old.throttle_burst) != (new.throttle, new.throttle_burst):
                self._bucket = _bucket(new)
            self._fault_debt = self._tail_debt = 0.0
            self.settings = new

    def state(self) -> dict[str, object]:
        """Counters, live tokens and settings, as the control endpoint shows them."""
        counts = self.counters.read()
        return {
            "token_puts": counts.token_puts,
            "v1_gets": counts.v1_gets,
            "v2_gets": counts.v2_gets,
            "refused": counts.refused,
            "throttled": counts.throttled,
            "by_path": counts.by_path,
            "live_tokens": self.tokens.live(self.now()),
            "settings": as_json(self.settings),
        }

    def receive(self, request: Request) -> Treatment:
        """Counts a request that has come, and says how it fares."""
        settings = self.settings
        delay, data = settings.latency + self._varied(settings), False
        if request.path == TOKEN_PATH:
            if request.method == "PUT":
                self.counters.token_put()
                delay += settings.put_latency
        elif request.method in _READS:
            data = True
            self.counters.data_get(request.path, bool(request.token))
        fault = settings.fault
        if fault is not None and not self._is_hit(settings, request.path, data):
            fault = None
        return Treatment(delay, fault)

    def answer(self, request: Request) -> Answer:
        """The answer to a request, decided now."""
        bucket = self._bucket
        if bucket is not None and not bucket.take(self._steady()):
            return self._throttled()
        answer = self._decide(request)
        if 400 <= answer.status < 500 and answer.status != 404:
            self.counters.refused()
        return answer

    def _throttled(self) -> Answer:
        self.counters.throttled()
        settings = self.settings
        retry = () if settings.retry_after is None else (f"Retry-After: {settings.retry_after}",)
        return error(settings.throttle_status, *retry)

    def _decide(self, request: Request) -> Answer:
        if request.path == TOKEN_PATH:
            return self._token(request) if request.method == "PUT" else error(405, "Allow: PUT")
        if request.method not in _READS:
            return error(405, "Allow: GET, HEAD")
        return self._data(request)

    def _token(self, request: Request) -> Answer:
        settings = self.settings
        if settings.put_status is not None:
            return _overridden(settings.put_status)
        if request.forwarded:  # documented: it comes before the TTL
            return error(403)
        ttl = parse_ttl(request.ttl)
        if ttl is None:
            return error(400)
        return Answer(200, self.tokens.issue(min(ttl, settings.max_token_ttl), self.now()).encode())

    def _data(self, request: Request) -> Answer:
        settings = self.settings
        if settings.get_status is not None:
            return _overridden(settings.get_status)
        if request.token:
            if not self.tokens.valid(request.token, self.now()):
                return error(401)
        elif settings.http_tokens == "required":
            return error(403)
        place = locate(request.path)
        body = None if place is None else self._tree.look_up(place, request.query)
        return error(404) if body is None else Answer(200, body)

    def _varied(self, settings: Settings) -> float:
        """What a latency has besides its constant part: evenly spread, not by chance."""
        if not (settings.latency_spread or settings.tail_rate):
            return 0.0
        with self._lock:
            self._spread = (self._spread + _GOLDEN) % 1
            delay = self._spread * settings.latency_spread
            self._tail_debt += settings.tail_rate
            if self._tail_debt >= 1 - 1e-9:
                self._tail_debt -= 1
                delay += settings.tail_latency
            return delay

    def _is_hit(self, settings: Settings, path: str, data: bool) -> bool:
        part = settings.fault_path
        if not data if part is None else part not in path:
            return False
        with self._lock:  # evenly, not by chance: a test that counts must be able to
            self._fault_debt += settings.fault_rate
            if self._fault_debt < 1 - 1e-9:
                return False
            self._fault_debt -= 1
            return True

    def _grow(self, settings: Settings) -> Tree:
        leaves: dict[str, Leaf] = {path: text.encode() for path, text in ITEMS.items()}
        leaves["dynamic/instance-identity/document"] = identity.document()
        leaves["dynamic/instance-identity/pkcs7"] = identity.pkcs7
        role = settings.role
        if role is not None:
            leaves[f"meta-data/ram/security-credentials/{role}"] = lambda query: self.issuer.rendered(
                role, self.now(), settings.credential_life, settings.rotation_lead
            )
        if settings.user_data is not None:
            leaves["user-data"] = settings.user_data.encode("utf-8", "surrogateescape")
        if settings.spot_termination is not None:
            leaves["meta-data/instance/spot/termination-time"] = settings.spot_termination.encode()
        for path, text in settings.extra_items.items():
            for other in [other for other in leaves if _within(other, path) or _within(path, other)]:
                del leaves[other]  # an item is a leaf or a directory, not both: the extra one wins
            leaves[path] = text.encode("utf-8", "surrogateescape")
        # Whether the real one holds credentials is unknown: the emulator shows the worst a proxy may meet.
        leaves.setdefault(_ALL, lambda query: tree.as_json("meta-data", without=_ALL))
        for hidden in settings.hidden_items:
            for path in [path for path in leaves if _within(path, hidden)]:
                del leaves[path]
        tree = Tree(leaves)
        return tree


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _bucket(settings: Settings) -> Bucket | None:
    if settings.throttle is None:
        return None
    return Bucket(settings.throttle, settings.throttle_burst or max(1.0, settings.throttle))


def _overridden(status: int) -> Answer:
    """An answer with a status that a setting demands."""
    return error(status) if status >= 400 else Answer(status, b"")
