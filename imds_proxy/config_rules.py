"""The policy section: its keys, the kinds of value that rules hold, and what contradicts what in it.

Turns what was written into the policy room's rules; decides nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Literal, get_args

from imds_proxy.config_reader import key, rows
from imds_proxy.config_values import ItemPattern, Word, quoted
from imds_proxy.policy.matching import CallerMatch, Selector
from imds_proxy.policy.rules import Rate, Rule, RulePaths
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.profile import ItemClass, Profile

Enforcement = Literal["audit", "enforce"]
Default = Literal["allow", "deny"]
Legacy = Literal["upgrade", "refuse"]

_RATE = re.compile(r"([0-9]{1,7})/([smh])(?: burst ([0-9]{1,7}))?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_NAME = re.compile(r"[A-Za-z0-9 ._:/@()'+,-]{1,80}", re.ASCII)
_UIDS = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9./_*-]+=[A-Za-z0-9._*-]*", re.ASCII)
_MAX_UID = 2**32 - 2  # the last number means "no user"


@dataclass(frozen=True, slots=True)
class RateKind:
    """A `Rate`: `20/s`, `30/m`, `20/s burst 200`; without a burst that is one second's worth, 1 at least."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "a rate like 20/s, 30/m or 20/s burst 200"

    def read(self, text: str, tag: str) -> Rate:
        """Raises ValueError."""
        match = _RATE.fullmatch(text)
        if match is None or int(match[1]) == 0 or match[3] == "0":
            raise ValueError(f"{quoted(text)} is not a rate above zero; write {self.allowed}")
        per_second = int(match[1]) / _SECONDS[match[2]]
        return Rate(per_second, float(match[3] or max(1.0, per_second)))

    def show(self, value: object) -> str:
        """The value as it would be written."""
        if not isinstance(value, Rate):
            return ""
        for unit, seconds in _SECONDS.items():
            count = round(value.per_second * seconds, 6)
            if count == int(count):
                return f"{int(count)}/{unit} burst {int(value.burst)}"
        return f"{value.per_second}/s burst {int(value.burst)}"


@dataclass(frozen=True, slots=True)
class RuleName:
    """A rule's name: it stands in bodies of refusals and in the log."""

    allowed = "1 to 80 letters, digits, spaces and ._:/@()'+,-"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if not _NAME.fullmatch(text) or text != text.strip():
            raise ValueError(f"{quoted(text)} is no name of a rule; allowed is {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`, and no other of YAML's booleans."""

    allowed = "true or false"

    def read(self, text: str, tag: str) -> bool:
        """Raises ValueError."""
        if text not in ("true", "false"):
            raise ValueError(f"{quoted(text)} is neither; allowed is {self.allowed}")
        return text == "true"

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value).lower()


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob over a fact; with `absolute` over a path from the root."""

    absolute: bool = False

    @property
    def allowed(self) -> str:
        """What may be written."""
        what = "an absolute path" if self.absolute else "a text"
        return f"{what}, `*` for a part of a segment, `**` over segments"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if self.absolute and (not text.startswith("/") or "//" in text or {".", ".."} & set(text.split("/"))):
            raise ValueError(f"{quoted(text)} is not in normal form; write {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Form:
    """A text of a fixed form."""

    expression: re.Pattern[str]
    allowed: str

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if not self.expression.fullmatch(text):
            raise ValueError(f"{quoted(text)} is not {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class UidRange:
    """A uid, or a range of them: `1000-1999`."""

    allowed = f"a uid or a range of them from 0 to {_MAX_UID}, like 1000 or 1000-1999"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        match = _UIDS.fullmatch(text)
        if match is None or not int(match[1]) <= int(match[2] or match[1]) <= _MAX_UID:
            raise ValueError(f"{quoted(text)} is not {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


def _patterns(kind: Pattern | Form | UidRange, doc: str) -> tuple[str, ...]:
    value: tuple[str, ...] = field(default=(), metadata=key(kind, doc, many=True, single=True))
    return value


_TEXT = Pattern()
_PATH = Pattern(absolute=True)


@dataclass(frozen=True, slots=True)
class ContainerKeys:
    """A container, by what its runtime says of it."""

    id: tuple[str, ...] = _patterns(_TEXT, "Container id (64 hexadecimal digits).")
    name: tuple[str, ...] = _patterns(_TEXT, "Container name.")
    image: tuple[str, ...] = _patterns(_TEXT, "Image that it was made from.")


@dataclass(frozen=True, slots=True)
class PodKeys:
    """A Kubernetes pod."""

    namespace: tuple[str, ...] = _patterns(_TEXT, "Namespace of the pod.")
    name: tuple[str, ...] = _patterns(_TEXT, "Name of the pod.")
    service_account: tuple[str, ...] = _patterns(_TEXT, "Service account of the pod.")
    labels: tuple[str, ...] = _patterns(Form(_LABEL, "a label like app=web"), "Labels, all of which it has.")


@dataclass(frozen=True, slots=True)
class CallerKeys:
    """Which callers a rule means: every key given must agree, with one of its values."""

    exe: tuple[str, ...] = _patterns(_PATH, "Executable: this very file (device and inode).")
    sha256: tuple[str, ...] = _patterns(Form(_SHA256, "64 hexadecimal digits"), "SHA-256 of that file.")
    script: tuple[str, ...] = _patterns(_TEXT, "Script, module or main class that an interpreter runs.")
    user: tuple[str, ...] = _patterns(_TEXT, "User name or number.")
    group: tuple[str, ...] = _patterns(_TEXT, "Group name or number, primary or supplementary.")
    uid: tuple[str, ...] = _patterns(UidRange(), "Uids.")
    unit: tuple[str, ...] = _patterns(_TEXT, "Unit of systemd; of a login session the user's slice.")
    parent: tuple[str, ...] = _patterns(_PATH, "Executable of an ancestor.")
    container: ContainerKeys = ContainerKeys()
    pod: PodKeys = PodKeys()

    def match(self) -> CallerMatch:
        """The policy room's form of it."""
        found = []
        for part, prefix in ((self, ""), (self.container, "container_"), (self.pod, "pod_")):
            for item in fields(part):
                value = getattr(part, item.name)
                if isinstance(value, tuple) and value:
                    fact = "container" if (prefix, item.name) == ("container_", "id") else prefix + item.name
                    found.append(Selector(fact, value))
        return CallerMatch(tuple(found))


@dataclass(frozen=True, slots=True)
class RuleKeys:
    """One rule as written. The first rule whose caller and paths agree decides."""

    name: str = field(default="", metadata=key(RuleName(), "Its name, in refusals and in the log."))
    caller: CallerKeys = CallerKeys()
    paths: tuple[str, ...] = field(
        default=(),
        metadata=key(ItemPattern(), "Items, under every version; none: every item.", many=True, single=True),
    )
    allow: bool = field(default=True, metadata=key(Flag(), "false: these callers may not read these items."))
    legacy: Legacy | None = field(
        default=None,
        metadata=key(
            Word(get_args(Legacy)), "upgrade: also where mode is enforce; refuse: a token is needed."
        ),
    )
    enforcement: Enforcement | None = field(
        default=None,
        metadata=key(Word(get_args(Enforcement)), "For what this rule refuses, in place of the policy's."),
    )
    rate: Rate | None = field(
        default=None,
        metadata=key(RateKind(), "For each caller that this rule means, in place of limits.hits."),
    )
    cache: bool = field(
        default=True,
        metadata=key(Flag(), "false: the service itself is asked, always; see the cache section."),
    )

    def rule(self, profile: Profile) -> Rule:
        """The policy room's form of it."""
        return Rule(
            name=self.name,
            caller=self.caller.match(),
            paths=rule_paths(self.paths, profile),
            allow=self.allow,
            legacy=self.legacy,
            enforcing=None if self.enforcement is None else self.enforcement == "enforce",
            rate=self.rate,
            cache=self.cache,
        )


_SENSITIVE = (
    "meta-data/ram/**",
    "meta-data/all",
    "user-data",
    "vendor-data",
    "global-config/**",
    "dynamic/instance-identity/**",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may read what."""

    enforcement: Enforcement = field(
        default="audit",
        metadata=key(
            Word(get_args(Enforcement)), "audit: log what would be refused for identity; enforce: refuse it."
        ),
    )
    default: Default = field(
        default="allow", metadata=key(Word(get_args(Default)), "What no rule means is allowed or denied.")
    )
    sensitive: tuple[str, ...] = field(
        default=_SENSITIVE,
        metadata=key(ItemPattern(), "Items that no unnamed caller may read; under every version.", many=True),
    )
    rules: tuple[RuleKeys, ...] = field(
        default=(), metadata=rows(RuleKeys(), "Who may read what; the first rule that agrees decides.")
    )


def rule_paths(patterns: tuple[str, ...], profile: Profile) -> RulePaths:
    """Paths of a rule for this provider."""
    return RulePaths(patterns, *_of_provider(profile))


@lru_cache(maxsize=1)  # asked for each rule
def _of_provider(profile: Profile) -> tuple[frozenset[str], tuple[str, ...]]:
    """First segments that are no version, and aggregates."""
    return profile.roots, tuple(text for text, item in profile.item_classes if item is ItemClass.AGGREGATE)


def rule_conflicts(policy: Policy) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with rules beyond one key: the keys, and a sentence."""
    sensitive = SensitivePaths(policy.sensitive)
    names: set[str] = set()
    for number, rule in enumerate(policy.rules, 1):
        place = f"policy.rules[{number}]"
        if not rule.name:
            yield (place, f"{place}.name"), f"{place} has no name; a rule is named in every refusal it causes"
            continue
        if rule.name in names:
            yield (
                (place, f"{place}.name"),
                f"{place}: the name {quoted(rule.name)} is taken by an earlier rule",
            )
        names.add(rule.name)
        match = rule.caller.match()
        if "exe" not in {s.fact for s in match.selectors} and match.patterns("sha256"):
            yield (place, f"{place}.caller.sha256"), f"{place}: sha256 is of an executable; give its exe too"
        if (rule.enforcement or policy.enforcement) != "enforce" or not rule.allow:
            continue
        if not match.selectors or match.names_boundary:
            continue
        paths = RulePaths(rule.paths, frozenset(), ())
        if paths.touches(sensitive):
            yield (
                (place, f"{place}.caller", f"{place}.paths"),
                f"{place} ({quoted(rule.name)}) gives a sensitive item to a program, which any process "
                "may imitate; under enforce it must name a user, group, uid, unit, container or pod too",
            )
