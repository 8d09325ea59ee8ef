"""Where answers are kept: bounded in entries and bytes, and so for each caller.

Knows nothing of time: whoever takes an answer out judges it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from imds_proxy.policy.freshness import Lifetime
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target

_OVERHEAD = 1024  # bytes that an entry takes besides its body, about
_SHARE = 4  # one caller has at most a quarter


@dataclass(slots=True)
class Stored:
    """One answer, when it was got, who asked for it first, how it is used. `secret`: it holds credentials.

    `until` is for whoever holds on to it: it is fresh before that time, and never again once it is no longer
    kept. `ended` is called when that changes: it ends before the time that it had.
    """

    target: Target
    item: ItemClass
    answer: Answer
    lifetime: Lifetime
    got: float
    owner: Hashable
    secret: bool = False
    hits: int = 0
    used_at: float = -math.inf
    until: float = -math.inf
    ended: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    _seen_hits: int = -1
    _wires: dict[tuple[bool, bool], bytes] = field(default_factory=dict, repr=False)

    @property
    def cost(self) -> int:
        """Bytes, about."""
        answer, target = self.answer, self.target
        size = len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers)
        # As it came, and as it goes out.
        return _OVERHEAD + 2 * size + 2 * len(target.path) + len(target.query or "")

    @property
    def role(self) -> str | None:
        """The role (lower case) of which this is the set of credentials, or the word that there is none."""
        return self.target.segments[-1] if self.item is ItemClass.CREDENTIALS else None

    def wire(self, head_only: bool, keep_alive: bool) -> bytes:
        """The answer's bytes, made once."""
        found = self._wires.get((head_only, keep_alive))
        if found is None:
            found = self.answer.encode(head_only=head_only, keep_alive=keep_alive)
            self._wires[head_only, keep_alive] = found
        return found


class AnswerStore:
    """Answers by key. What one caller's requests bring in evicts its own answers first."""

    def __init__(self, entries: int, size: int) -> None:
        """At most `entries`, of at most `size` bytes together."""
        self._entries, self._size = entries, size
        self._stored: dict[Hashable, Stored] = {}
        self._owned: dict[Hashable, OrderedDict[Hashable, None]] = {}
        self._bytes: dict[Hashable, int] = {}
        self._total = self._past_hits = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def size(self) -> int:
        """Bytes kept, about."""
        return self._total

    @property
    def hits(self) -> int:
        """How often an answer was served again, since the start."""
        return self._past_hits + sum(stored.hits for stored in self._stored.values())

    def change(self, entries: int, size: int) -> None:
        """Other bounds from now on."""
        self._entries, self._size = entries, size
        self._shrink()

    def get(self, key: Hashable) -> Stored | None:
        """The answer, which is the last that its owner's other ones evict."""
        stored = self._stored.get(key)
        if stored is not None:
            self._owned[stored.owner].move_to_end(key)
        return stored

    def limit(self, stored: Stored, lifetime: Lifetime) -> None:
        """Another lifetime for an answer that is kept."""
        if stored.ended is not None:
            stored.ended()
        stored.lifetime, stored.until = lifetime, lifetime.fresh_until

    def put(self, key: Hashable, stored: Stored) -> None:
        """Keeps an answer in place of an earlier one; one too large for a caller's share is not kept."""
        self.forget(key)
        if stored.cost > self._size // _SHARE:
            return
        owner = stored.owner
        self._past_hits -= stored.hits  # those of the one in whose place it comes
        stored.until, stored._seen_hits = stored.lifetime.fresh_until, stored.hits
        self._stored[key] = stored
        self._owned.setdefault(owner, OrderedDict())[key] = None
        self._bytes[owner] = self._bytes.get(owner, 0) + stored.cost
        self._total += stored.cost
        most = max(1, self._entries // _SHARE)
        while len(self._owned[owner]) > most or self._bytes[owner] > self._size // _SHARE:
            self._evict(owner)
        self._shrink()

    def forget(self, key: Hashable) -> None:
        """Drops an answer, if it is there."""
        stored = self._stored.pop(key, None)
        if stored is None:
            return
        stored.until = -math.inf
        if stored.ended is not None:
            stored.ended()
        self._past_hits += stored.hits
        owned = self._owned[stored.owner]
        del owned[key]
        self._bytes[stored.owner] -= stored.cost
        self._total -= stored.cost
        if not owned:
            del self._owned[stored.owner], self._bytes[stored.owner]

    def forget_where(self, condition: Callable[[Stored], bool]) -> None:
        """Drops every answer of which the condition is true."""
        for key in [key for key, stored in self._stored.items() if condition(stored)]:
            self.forget(key)

    def items(self) -> Iterator[tuple[Hashable, Stored]]:
        """All answers with their keys, as they are now."""
        return iter(list(self._stored.items()))

    def _shrink(self) -> None:
        while len(self._stored) > self._entries:
            self._evict(max(self._owned, key=lambda owner: len(self._owned[owner])))
        while self._total > self._size:
            self._evict(max(self._bytes, key=lambda owner: self._bytes[owner]))

    def _evict(self, owner: Hashable) -> None:
        owned = self._owned[owner]
        for key in list(owned):
            stored = self._stored[key]
            if stored.hits == stored._seen_hits:
                break
            # Whoever holds on to an answer does not ask for it again: its hits tell that it is in use.
            stored._seen_hits = stored.hits
            owned.move_to_end(key)
        self.forget(next(iter(owned)))
