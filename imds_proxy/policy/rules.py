"""Rules: which callers, which paths, and what then. The first rule that means a request decides.

Knows nothing of sessions in the wire's terms or of files; `decision` applies rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from imds_proxy.errors import RULE, RULE_LEGACY, Refusal
from imds_proxy.policy.caller import Caller
from imds_proxy.policy.index import Condition, ConditionIndex
from imds_proxy.policy.matching import CallerMatch, texts_of
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.items import PathPattern

_PATH = "path"  # beside the facts of callers
_FEW = 16  # rules: these are asked sooner than looked up


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second, and how many at once."""

    per_second: float
    burst: float


class RulePaths:
    """The paths of a rule; none given means every path.

    What a rule allows is read strictly: below one version prefix or none. What it denies is read widely,
    like sensitive paths: at any segment offset, with all below, with the listing that shows a denied
    `*`, and with the aggregate (`meta-data/all`) that would tell the same.
    """

    def __init__(self, patterns: Iterable[str], roots: frozenset[str], aggregates: Iterable[str]) -> None:
        """`roots` are first segments that are no version. Raises ValueError for a malformed pattern."""
        self.texts = tuple(patterns)
        self._roots = roots
        self._strict = tuple(PathPattern.parse(text) for text in self.texts)
        also = [a for a in aggregates if any(p.segments[0] in ("*", a.split("/")[0]) for p in self._strict)]
        self._wide = SensitivePaths((*self.texts, *also))

    def allows(self, segments: tuple[str, ...]) -> bool:
        """Whether an allowing rule means this path."""
        if not self.texts:
            return True
        below = segments[1:] if segments and segments[0] not in self._roots else segments
        return any(pattern.matches(below) for pattern in self._strict)

    def denies(self, segments: tuple[str, ...]) -> bool:
        """Whether a denying rule means this path."""
        return not self.texts or self._wide.match(segments) is not None

    @property
    def heads(self) -> tuple[tuple[str, ...], ...]:
        """How the paths begin that are allowed, below their version; none: every path is."""
        return tuple(pattern.head for pattern in self._strict)

    @property
    def denied_heads(self) -> tuple[tuple[str, ...], ...]:
        """How the paths begin that are denied, from some segment on; none: every path is."""
        return self._wide.heads if self.texts else ()

    @property
    def own_texts(self) -> tuple[tuple[str, ...], ...]:
        """For an index of other paths: what those that cover these are found by."""
        return tuple(pattern.segments for pattern in self._strict)

    def covers(self, other: RulePaths) -> bool:
        """Whether every path of `other` is surely one of these."""
        if not self.texts:
            return True
        return bool(other.texts) and all(
            any(mine.covers(theirs) for mine in self._strict) for theirs in other._strict
        )

    def touches(self, sensitive: SensitivePaths) -> bool:
        """Whether a sensitive path is among them."""
        return not self.texts or any(sensitive.touched_by(pattern) for pattern in self._strict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `allow` False refuses; `legacy` is upgrade, refuse or None (as the mode says);
    `enforcing` overrides the global enforcement (None: as that says); `rate` is of its own for each caller;
    `cache` False asks the service always.
    """

    name: str
    caller: CallerMatch
    paths: RulePaths
    allow: bool = True
    legacy: str | None = None
    enforcing: bool | None = None
    rate: Rate | None = None
    cache: bool = True

    def means(self, caller: Caller, segments: tuple[str, ...]) -> bool:
        """Whether the rule is for this caller and this path (segments in lower case)."""
        return self.concerns(segments) and self.caller.matches(caller)

    def concerns(self, segments: tuple[str, ...]) -> bool:
        """Whether the rule is for this path, whoever calls."""
        return self.paths.allows(segments) if self.allow else self.paths.denies(segments)

    @property
    def refusal(self) -> Refusal:
        """What a caller is told that this rule denies."""
        return replace(RULE, sentence=RULE.sentence.replace("A rule", f"The rule '{self.name}'"))

    @property
    def legacy_refusal(self) -> Refusal:
        """What a caller is told whose normal-mode call this rule refuses."""
        return replace(
            RULE_LEGACY, sentence=RULE_LEGACY.sentence.replace("A rule", f"The rule '{self.name}'")
        )


class RuleIndex:
    """Finds the rules for a caller, and the one for a path, without asking all of them.

    Rules whose callers are written alike are one group; what is found of a caller are numbers of groups.
    """

    __slots__ = ("_by_caller", "_by_path", "_callers", "_group_of", "_groups", "_rules")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        groups: dict[CallerMatch, list[int]] = {}
        for number, rule in enumerate(rules):
            groups.setdefault(rule.caller, []).append(number)
        self._rules = rules
        self._callers, self._groups = tuple(groups), tuple(groups.values())
        self._group_of = {number: group for group, own in enumerate(self._groups) for number in own}
        self._by_caller = ConditionIndex(caller.conditions for caller in self._callers)
        self._by_path = ConditionIndex(
            _under(rule.paths.heads if rule.allow else rule.paths.denied_heads) for rule in rules
        )

    def of(self, caller: Caller) -> frozenset[int]:
        """The groups of rules that are for this caller."""
        candidates = set(self._by_caller.at(partial(texts_of, caller)))
        return frozenset(group for group in candidates if self._callers[group].matches(caller))

    def first(self, groups: frozenset[int], segments: tuple[str, ...]) -> Rule | None:
        """The first rule of these groups for this path (segments in lower case)."""
        numbers: Iterable[int]
        if sum(len(self._groups[group]) for group in groups) <= _FEW:
            numbers = sorted(number for group in groups for number in self._groups[group])
        else:
            longest = self._by_path.longest
            texts = [segments[offset : offset + longest] for offset in range(len(segments))]
            numbers = (n for n in self._by_path.at(lambda _: texts) if self._group_of[n] in groups)
        return next((self._rules[n] for n in numbers if self._rules[n].concerns(segments)), None)


def hidden_by(rules: Iterable[Rule]) -> list[tuple[Rule, Rule]]:
    """Pairs of a rule that can never decide and the earlier one that surely always does."""
    each = tuple(rules)
    by_caller = ConditionIndex(rule.caller.conditions for rule in each)
    by_path = ConditionIndex(_under(rule.paths.heads) for rule in each)
    found: list[tuple[Rule, Rule]] = []
    for number, rule in enumerate(each):
        of_caller = by_caller.wider(rule.caller.own_texts)
        of_path = by_path.wider(_under(rule.paths.own_texts))
        for at in of_caller if of_caller.size < of_path.size else of_path:
            if at >= number:
                break
            if each[at].paths.covers(rule.paths) and each[at].caller.covers(rule.caller):
                found.append((rule, each[at]))
                break
    return found


def _under(heads: tuple[tuple[str, ...], ...]) -> tuple[Condition, ...]:
    return ((_PATH, heads),) if heads else ()
