"""`imds-proxy policy explain`: which rule decides for a caller and a path, and why no earlier one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imds_proxy.errors import Refused
from imds_proxy.policy.caller import Caller, Identity, Process, Program
from imds_proxy.policy.decision import Decision, Policy
from imds_proxy.policy.rules import Rule
from imds_proxy.protocol.session import Session
from imds_proxy.protocol.target import Target, canonical_target


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and of each rule up to the deciding one why it decides or not."""

    target: Target
    session: Session
    decision: Decision
    sensitive: str | None
    steps: tuple[tuple[str, str], ...]

    @property
    def outcome(self) -> str:
        """`allowed`, `would-refuse` or `refused`."""
        if self.decision.refusal:
            return "refused"
        return "would-refuse" if self.decision.would_refuse else "allowed"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        reason = self.decision.refusal or self.decision.would_refuse
        return {
            "path": self.target.path,
            "session": self.session.value,
            "sensitive": self.sensitive,
            "outcome": self.outcome,
            "slug": reason.slug if reason else None,
            "reason": reason.sentence if reason else None,
            "rule": self.decision.rule.name if self.decision.rule else None,
            "steps": [{"rule": name, "why": why} for name, why in self.steps],
        }

    def as_text(self) -> str:
        """For people."""
        reason = self.decision.refusal or self.decision.would_refuse
        lines = [
            f"path      {self.target.path}"
            + (f" (sensitive: {self.sensitive})" if self.sensitive else " (not sensitive)"),
            f"session   {self.session.value}",
            *(f"rule      {name}: {why}" for name, why in self.steps),
        ]
        if self.decision.rule is None:
            lines.append("rule      none means this caller and path: policy.default decides")
        lines.append(f"outcome   {self.outcome}" + (f": {reason.slug}: {reason.sentence}" if reason else ""))
        return "\n".join(lines) + "\n"


def explain(policy: Policy, caller: Caller, path: str, session: Session) -> Explanation:
    """The decision for one item. `path` may lack its version; raises ValueError for one that is refused."""
    try:
        target = canonical_target(("/" + path.lstrip("/")).encode("ascii"))
    except (Refused, UnicodeEncodeError) as error:
        raise ValueError(f"the path is refused: {error}") from None
    decision = policy.of_item(target.segments, session, caller)
    sensitive = policy.sensitive.match(target.segments)
    return Explanation(target, session, decision, sensitive, tuple(_steps(policy, caller, target)))


def caller_of(facts: dict[str, str | None]) -> Caller:
    """A caller made up of facts, as `--exe`, `--user` and the like give them; what is not given is absent.

    Raises ValueError for a uid that is no number.
    """
    uid_text = facts.get("uid")
    if uid_text is not None and not uid_text.isdecimal():
        raise ValueError(f"{uid_text!r} is no uid; a uid is a number")
    exe, user = facts.get("exe"), facts.get("user")
    uid = int(uid_text) if uid_text is not None else (int(user) if user and user.isdecimal() else None)
    group, parent, container = facts.get("group"), facts.get("parent"), facts.get("container")
    known = uid is not None or user is not None
    return Caller(
        # A name without its number is enough for rules: the boundary counts as known.
        identity=Identity(uid if uid is not None else (-1 if known else None), facts.get("unit"), container),
        user=user,
        process=Process(0, exe),
        program=Program(
            exe=frozenset({exe} if exe else ()),
            sha256=facts.get("sha256"),
            script=facts.get("script"),
            groups=frozenset({group} if group else ()),
            parents=frozenset({parent} if parent else ()),
            contained=container is not None,
        ),
    )


def _steps(policy: Policy, caller: Caller, target: Target) -> Iterator[tuple[str, str]]:
    for rule in policy.rules:
        if rule.means(caller, target.segments):
            yield rule.name, f"decides: {'allows' if rule.allow else 'refuses'}{_how(rule)}"
            return
        mismatch = rule.caller.mismatch(caller)
        yield rule.name, f"no: {mismatch}" if mismatch else "no: it means other paths"


def _how(rule: Rule) -> str:
    return f", legacy: {rule.legacy}" if rule.legacy else ""
