"""What a request may do: form, mode, rules and identity, in this order. Pure.

The one place where refusals in force and refusals that audit only reports are told apart.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from imds_proxy.errors import (
    BROWSER,
    CONTAINER,
    DEFAULT_DENY,
    HOST,
    LEGACY_REFUSED,
    RELAYED,
    TOKEN_BINDING,
    UNRESOLVED,
    Refusal,
)
from imds_proxy.policy.caller import Caller
from imds_proxy.policy.rules import Rule, RuleIndex
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.session import Session

_PLAIN_SESSIONS = (Session.LEGACY, Session.FALLBACK)


@dataclass(frozen=True, slots=True)
class Decision:
    """`refusal` is in force; `would_refuse` is what audit (or passthrough) let go, for the log.

    `rule` is the rule that means this caller and path, if one does. `exclusive`: it is allowed for the
    caller's identity in enforcement, so every process that can read the answer must be allowed.
    """

    refusal: Refusal | None = None
    would_refuse: Refusal | None = None
    rule: Rule | None = None
    exclusive: bool = False


ALLOWED = Decision()
_MAX_REMEMBERED = 256  # paths of one caller profile


class DecisionMemo:
    """What was decided for callers of one profile: one look-up a request; and which `rules` are for them,
    as the policy's index says, so that another path costs those and not all. It is of one policy, bounded,
    and forgotten when another policy is in force."""

    __slots__ = ("decisions", "policy", "rules")

    def __init__(self) -> None:
        self.policy: Policy | None = None
        self.decisions: dict[tuple[str, Session], Decision] = {}
        self.rules: frozenset[int] = frozenset()

    def begin(self, policy: Policy, caller: Caller) -> None:
        """Forgets all, if that was of another policy; decisions also when they are too many."""
        if self.policy is not policy:
            self.policy, self.decisions = policy, {}
            self.rules = policy.index.of(caller)
        elif len(self.decisions) >= _MAX_REMEMBERED:
            self.decisions = {}


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force: `mode` upgrade, enforce or passthrough; `enforcing` for refusals by identity;
    `default_allow` for what no rule means; `roots` are first segments of items that are no version."""

    mode: str
    enforcing: bool
    sensitive: SensitivePaths
    rules: tuple[Rule, ...] = ()
    default_allow: bool = True
    roots: frozenset[str] = frozenset()
    index: RuleIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", RuleIndex(self.rules))

    def decide(
        self,
        request: Request,
        session: Session,
        hosts: Container[bytes],
        caller: Caller,
        memo: DecisionMemo,
        bound_elsewhere: bool = False,
    ) -> Decision:
        """The decision for one request.

        `hosts` are the accepted Host values; `memo` remembers decisions of this policy for callers with
        this profile; `bound_elsewhere` says that the token was given to another identity.
        """
        form = self._form(request, session, hosts)
        if self.mode == "passthrough":
            return Decision(would_refuse=form) if form else ALLOWED
        if form:
            return Decision(refusal=form)
        if bound_elsewhere and self.enforcing:
            return Decision(refusal=TOKEN_BINDING)
        if session is Session.TOKEN:
            return ALLOWED  # a token alone reads nothing, and a 4xx here breaks cloud-init
        key = (request.target.path, session)
        decision = memo.decisions.get(key) if memo.policy is self else None
        if decision is None:
            memo.begin(self, caller)
            rule = self.index.first(memo.rules, request.target.segments)
            decision = memo.decisions[key] = self._by_rule(rule, request.target.segments, session, caller)
        if bound_elsewhere and decision.refusal is None:
            return Decision(would_refuse=TOKEN_BINDING, rule=decision.rule)
        return decision

    def of_item(self, segments: tuple[str, ...], session: Session, caller: Caller) -> Decision:
        """Mode, rules and identity for one item (segments in lower case), whatever the request's form."""
        rule = self.index.first(self.index.of(caller), segments)
        return self._by_rule(rule, segments, session, caller)

    def _by_rule(
        self, rule: Rule | None, segments: tuple[str, ...], session: Session, caller: Caller
    ) -> Decision:
        sensitive = self.sensitive.match(segments) is not None
        # The root and a version list what there is, and that is no secret: no pattern could name them.
        versions_only = not segments or (len(segments) == 1 and segments[0] not in self.roots)
        findings = list(self._findings(rule, sensitive, versions_only, session, caller))
        in_force = next((refusal for refusal, enforcing in findings if enforcing), None)
        if in_force is not None:
            return Decision(refusal=in_force, rule=rule)
        enforcing = rule.enforcing if rule and rule.enforcing is not None else self.enforcing
        would_refuse = findings[0][0] if findings else None
        if rule is None and would_refuse is None and not (enforcing and sensitive):
            return ALLOWED
        return Decision(would_refuse=would_refuse, rule=rule, exclusive=enforcing and sensitive)

    def _findings(
        self, rule: Rule | None, sensitive: bool, versions_only: bool, session: Session, caller: Caller
    ) -> Iterator[tuple[Refusal, bool]]:
        """Every reason to refuse, and whether it is in force."""
        enforcing = rule.enforcing if rule and rule.enforcing is not None else self.enforcing
        plain = session in _PLAIN_SESSIONS
        if plain and self.mode == "enforce" and not (rule and rule.legacy == "upgrade"):
            yield LEGACY_REFUSED, True
        if rule is not None:
            if not rule.allow:
                yield rule.refusal, enforcing
            elif plain and rule.legacy == "refuse":
                yield rule.legacy_refusal, enforcing
        elif not self.default_allow and not versions_only:
            yield DEFAULT_DENY, enforcing
        if not sensitive:
            return
        # A rule's own enforcement is for what that rule refuses, not for who the caller is.
        if not caller.identity.resolved:
            yield UNRESOLVED, self.enforcing
        elif caller.program.contained and not (rule and rule.caller.names_place):
            yield CONTAINER, self.enforcing

    def _form(self, request: Request, session: Session, hosts: Container[bytes]) -> Refusal | None:
        if request.host is not None and request.host not in hosts:
            return HOST
        if session is Session.HARDENED:
            return None  # a token was fetched by a PUT, which no relay can send
        if request.relayed:
            return RELAYED
        if request.browser:
            return BROWSER
        # A page in a headless browser can suppress every header but this one.
        if (
            request.browser_agent
            and session in _PLAIN_SESSIONS
            and self.sensitive.match(request.target.segments)
        ):
            return BROWSER
        return None
