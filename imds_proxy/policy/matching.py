"""Which callers a rule means: selectors over a caller's facts, all of which must agree.

Knows nothing of paths, sessions or refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from imds_proxy.policy.caller import Caller
from imds_proxy.policy.index import Condition

_GLOB = re.compile(r"\*\*|\*|\?")
_GLOB_PARTS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=16_384)  # one for each rule of a large policy, or none is there when it is asked again
def glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` within one segment, `**` over segments; all else is literal, and the case counts."""
    out, at = [], 0
    for match in _GLOB.finditer(pattern):
        out += [re.escape(pattern[at : match.start()]), _GLOB_PARTS[match[0]]]
        at = match.end()
    return re.compile("".join((*out, re.escape(pattern[at:]))), re.DOTALL)


def is_glob(pattern: str) -> bool:
    """Whether the pattern has a wildcard."""
    return _GLOB.search(pattern) is not None


def _uids(caller: Caller) -> tuple[str, ...]:
    uid = caller.identity.uid
    return () if uid is None or uid < 0 else (str(uid),)  # negative: some uid, of a caller that is made up


def _known(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value is not None)


# Every selector there is, and the facts that it looks at: one of them must match one of the patterns.
FACTS: Mapping[str, Callable[[Caller], Iterable[str]]] = {
    "exe": lambda caller: caller.program.exe,
    "sha256": lambda caller: _known(caller.program.sha256),
    "script": lambda caller: _known(caller.program.script),
    "user": lambda caller: _known(caller.user, *_uids(caller)),
    "group": lambda caller: caller.program.groups,
    "uid": _uids,
    "unit": lambda caller: _known(caller.identity.unit),
    "container": lambda caller: _known(caller.identity.container),
    "container_name": lambda caller: _known(caller.container_name),
    "container_image": lambda caller: _known(caller.container_image),
    "pod_namespace": lambda caller: _known(caller.pod.namespace if caller.pod else None),
    "pod_name": lambda caller: _known(caller.pod.name if caller.pod else None),
    "pod_service_account": lambda caller: _known(caller.pod.service_account if caller.pod else None),
    "pod_labels": lambda caller: [f"{k}={v}" for k, v in caller.pod.labels.items()] if caller.pod else (),
    "parent": lambda caller: caller.program.parents,
}
_PLACES = frozenset(
    {
        *("container", "container_name", "container_image"),
        *("pod_namespace", "pod_name", "pod_service_account", "pod_labels"),
    }
)
_BOUNDARY = frozenset({"user", "uid", "group", "unit", *_PLACES})


_UID_BITS = 32
_BACKWARDS = " backwards"  # of a fact that an index looks up from its end


@dataclass(frozen=True, slots=True)
class Selector:
    """One fact and its patterns, of which one must match it (of labels: all, each by one label). There is one
    at least.

    A `uid` pattern is a number or a range, `1000-1999`; the others are globs.
    """

    fact: str
    patterns: tuple[str, ...]

    def matches(self, caller: Caller) -> bool:
        """Whether the caller has that fact. An absent fact matches nothing."""
        values = tuple(FACTS[self.fact](caller))
        met = (any(_agrees(self.fact, pattern, value) for value in values) for pattern in self.patterns)
        return all(met) if self.fact == "pod_labels" else any(met)

    def covers(self, other: Selector) -> bool:
        """Whether everything that `other` matches surely matches here (may say no where it does)."""
        same = self.fact == other.fact and self.fact != "pod_labels"
        return self == other or (
            same
            and all(
                any(mine == theirs or _agrees(self.fact, mine, theirs) for mine in self.patterns)
                for theirs in other.patterns
            )
        )


@dataclass(frozen=True, slots=True)
class CallerMatch:
    """All selectors of a rule; without any it means every caller."""

    selectors: tuple[Selector, ...] = ()

    def matches(self, caller: Caller) -> bool:
        """Whether every selector agrees."""
        return all(selector.matches(caller) for selector in self.selectors)

    def mismatch(self, caller: Caller) -> str | None:
        """The first selector that does not agree, as a sentence; None when all do."""
        for selector in self.selectors:
            if not selector.matches(caller):
                have = ", ".join(sorted(FACTS[selector.fact](caller))) or "unknown"
                return f"{selector.fact} is {have}, not {' or '.join(selector.patterns)}"
        return None

    def covers(self, other: CallerMatch) -> bool:
        """Whether every caller that `other` means is surely meant here."""
        return all(any(mine.covers(theirs) for theirs in other.selectors) for mine in self.selectors)

    def patterns(self, fact: str) -> tuple[str, ...]:
        """The patterns for one fact."""
        return tuple(p for selector in self.selectors if selector.fact == fact for p in selector.patterns)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """For an index: how each value of a fact begins that a selector takes, and how it ends."""
        return tuple(condition for one in self.selectors for condition in _conditions(one, _head))

    @property
    def own_texts(self) -> tuple[Condition, ...]:
        """For an index of other matches: what those that cover this one are found by."""
        return tuple(condition for one in self.selectors for condition in _conditions(one, _whole))

    @property
    def names_place(self) -> bool:
        """Whether it names a container or pod."""
        return any(selector.fact in _PLACES for selector in self.selectors)

    @property
    def names_boundary(self) -> bool:
        """Whether it names a user, group, unit, container or pod, and not a program alone."""
        return any(selector.fact in _BOUNDARY for selector in self.selectors)


def _agrees(fact: str, pattern: str, value: str) -> bool:
    if fact == "uid":
        low, _, high = pattern.partition("-")
        first, _, last = value.partition("-")
        return int(low) <= int(first) and int(last or first) <= int(high or low)
    return pattern == value or (is_glob(pattern) and glob(pattern).fullmatch(value) is not None)


def texts_of(caller: Caller, fact: str) -> Iterable[str]:
    """What an index finds conditions by that may be for this caller."""
    if fact.endswith(_BACKWARDS):
        return [value[::-1] for value in FACTS[fact.removesuffix(_BACKWARDS)](caller)]
    values = FACTS[fact](caller)
    return map(_bits, values) if fact == "uid" else values


def _conditions(selector: Selector, text: Callable[[str, str], str]) -> Iterator[Condition]:
    """By its patterns from the front, and from the back, where a wildcard may stand more in the way."""
    fact = selector.fact
    patterns = selector.patterns[:1] if fact == "pod_labels" else selector.patterns  # of all, one is enough
    yield fact, tuple(text(fact, pattern) for pattern in patterns)
    if fact != "uid":
        yield fact + _BACKWARDS, tuple(text(fact, pattern[::-1]) for pattern in patterns)


def _head(fact: str, pattern: str) -> str:
    """What the text of every value begins with that the pattern matches."""
    if fact == "uid":
        low, _, high = pattern.partition("-")
        return _bits(low)[: _UID_BITS - (int(low) ^ int(high or low)).bit_length()]
    wildcard = _GLOB.search(pattern)
    return pattern[: wildcard.start()] if wildcard else pattern


def _whole(fact: str, pattern: str) -> str:
    """The text of the pattern itself as a value; of a range of uids that of the lowest."""
    return _bits(pattern.partition("-")[0]) if fact == "uid" else pattern


def _bits(uid: str) -> str:
    # Uids of one range begin alike in these, and seldom in decimal digits.
    return format(int(uid), f"0{_UID_BITS}b")
