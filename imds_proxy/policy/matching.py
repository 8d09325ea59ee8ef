"""Which callers a rule means: selectors over a caller's facts, all of which must agree.

Knows nothing of paths, sessions or refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from imds_proxy.policy.caller import Caller

_GLOB = re.compile(r"\*\*|\*|\?")
_GLOB_PARTS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=4096)
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


@dataclass(frozen=True, slots=True)
class Selector:
    """One fact and the patterns of which one must match it (of labels: all, each by one label).

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
    return glob(pattern).fullmatch(value) is not None
