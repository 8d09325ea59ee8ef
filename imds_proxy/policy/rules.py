"""Rules: which callers, which paths, and what then. The first rule that means a request decides.

Knows nothing of sessions in the wire's terms or of files; `decision` applies rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from imds_proxy.errors import RULE, RULE_LEGACY, Refusal
from imds_proxy.policy.caller import Caller
from imds_proxy.policy.matching import CallerMatch
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.items import PathPattern


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


def hidden_by(rules: Iterable[Rule]) -> list[tuple[Rule, Rule]]:
    """Pairs of a rule that can never decide and the earlier one that surely always does."""
    found: list[tuple[Rule, Rule]] = []
    earlier: list[Rule] = []
    for rule in rules:
        for other in earlier:
            if other.caller.covers(rule.caller) and other.paths.covers(rule.paths):
                found.append((rule, other))
                break
        earlier.append(rule)
    return found
