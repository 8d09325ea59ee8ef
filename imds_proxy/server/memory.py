"""What is remembered for callers that are alike: what h11 said of heads, decisions, and whole plans.

Bounded in bytes, for each identity and in all: the unique heads of one caller cost its own memory first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from cachetools import LRUCache

from imds_proxy.ledger.tally import CallerKey, key_of
from imds_proxy.policy.caller import Caller, Identity, Profile
from imds_proxy.policy.decision import DecisionMemo
from imds_proxy.protocol.request import Request
from imds_proxy.server.plans import Errand, Failure, Plan

_OVERHEAD = 1024  # bytes of a request and a plan besides the head, about
_KIND = 2048  # bytes of a kind of caller, about
_HEADS, _IDENTITIES, _CLIENTS, _MET, _COMMON = 256, 1024, 4096, 1024, 2048
_SIZE = 32 << 20  # bytes
_SHARE = 8  # one identity has at most an eighth

# Callers are alike on a connection: what rules and the ledger see of them, the Host values that they may
# send, and under which naming of callers they were named.
Kind = tuple[Profile, CallerKey, frozenset[bytes], int]


def client_of(caller: Caller) -> Hashable:
    """The client program: one process where it is known."""
    process = caller.process
    return (process.pid, caller.start_ticks) if process else caller.identity


@dataclass(slots=True)
class _Owned:
    """All that is remembered for one identity."""

    cost: int = 0
    kinds: dict[Kind, Remembered] = field(default_factory=dict)


class Remembered:
    """For callers of one kind. Complete heads without a body only. A memo for `RequestReader`."""

    __slots__ = ("_heads", "_memory", "_owned", "decisions", "errands", "plans")

    def __init__(self, memory: Memory | None = None, owned: _Owned | None = None) -> None:
        self._memory, self._owned = memory, owned
        self._heads: dict[bytes, Request] = {}
        self.plans: dict[bytes, Plan] = {}
        self.errands: dict[bytes, Errand] = {}
        self.decisions = DecisionMemo()

    def get(self, head: bytes) -> Request | None:
        """What h11 said of exactly these bytes, whoever sent them first: that is no matter of callers."""
        found = self._heads.get(head)
        if found is None and self._memory is not None:
            found = self._memory.common.get(head)
            if found is not None:
                self[head] = found
        return found

    def __setitem__(self, head: bytes, request: Request) -> None:
        if len(self._heads) >= _HEADS:
            self.clear()
        self._heads[head] = request
        if self._memory is not None and self._owned is not None:
            self._memory.spent(self._owned, len(head) + _OVERHEAD)
            self._memory.share(head, request)

    def keep(self, head: bytes, plan: Plan) -> None:
        """Keeps a plan for a head that is known."""
        if head in self._heads:
            self.plans[head] = plan

    def keep_errand(self, head: bytes, errand: Errand) -> None:
        """Keeps an errand for a head that is known."""
        if head in self._heads:
            self.errands[head] = errand

    def clear(self) -> None:
        """Forgets heads, plans and errands."""
        self._heads.clear()
        self.plans.clear()
        self.errands.clear()


class Memory:
    """By kind of caller, the least recently seen identity forgotten first. `failed` is told of each client's
    failure (see `client_of`, and seconds, CLOCK_BOOTTIME)."""

    def __init__(self, size: int = _SIZE) -> None:
        """`size` in bytes, about."""
        self._size, self._cost = size, 0
        self._identities: LRUCache[Identity, _Owned] = LRUCache(_IDENTITIES)
        self.common: dict[bytes, Request] = {}
        self._met: dict[int, tuple[Caller, frozenset[bytes], int, tuple[Remembered, Failure]]] = {}
        self._failures: LRUCache[Hashable, Failure] = LRUCache(_CLIENTS)
        self.failed: Callable[[Hashable, float], None] | None = None

    def of(self, caller: Caller, hosts: frozenset[bytes], epoch: int) -> Remembered:
        """What is remembered for callers like this one, with these Host values, named in this epoch."""
        owned: _Owned | None = self._identities.get(caller.identity)
        if owned is None:
            owned = self._identities[caller.identity] = _Owned()
        kind = (caller.profile, key_of(caller), hosts, epoch)
        found = owned.kinds.get(kind)
        if found is None:
            self.spent(owned, _KIND)
            found = owned.kinds[kind] = Remembered(self, owned)
        return found

    def failure_of(self, caller: Caller) -> Failure:
        """The last failure of this client program: one process where it is known."""
        client = client_of(caller)
        found: Failure | None = self._failures.get(client)
        if found is None:
            told = partial(self.failed, client) if self.failed is not None else None
            found = self._failures[client] = Failure(told)
        return found

    def met(self, caller: Caller, hosts: frozenset[bytes], epoch: int) -> tuple[Remembered, Failure]:
        """What `of` and `failure_of` say: at one look for a caller (the same object) that was met before."""
        met = self._met.get(id(caller))
        if met is not None and met[0] is caller and met[1] is hosts and met[2] == epoch:
            return met[3]
        if len(self._met) >= _MET:
            self._met.clear()
        found = self.of(caller, hosts, epoch), self.failure_of(caller)
        self._met[id(caller)] = caller, hosts, epoch, found
        return found

    def share(self, head: bytes, request: Request) -> None:
        """For other kinds of callers. Who floods it takes from nobody what is remembered for that kind."""
        if len(self.common) >= _COMMON:
            self.common.clear()
        self.common[head] = request

    def renewed(self) -> Memory:
        """An empty one for other rules of heads; when clients failed is still known."""
        memory = Memory(self._size)
        memory._failures, memory.failed = self._failures, self.failed
        return memory

    def spent(self, owned: _Owned, cost: int) -> None:
        """Counts what an identity's memory grew by, and bounds it."""
        owned.cost += cost
        self._cost += cost
        if owned.cost > self._size // _SHARE:
            self._forget(owned)
        if self._cost > self._size:
            # What fell out of the LRU is counted no more.
            self._cost = sum(one.cost for one in self._identities.values())
            if self._cost > self._size:
                self._forget(max(self._identities.values(), key=lambda one: one.cost))

    def _forget(self, owned: _Owned) -> None:
        # Connections that are open go on with what they hold, which is bounded for each of them.
        for kind in owned.kinds.values():
            kind.clear()
        owned.kinds.clear()
        self._cost -= owned.cost
        owned.cost = 0
