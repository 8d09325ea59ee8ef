"""What a request may do: form, mode and identity, in this order. Pure.

The one place where refusals in force and refusals that audit only reports are told apart.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from imds_proxy.errors import BROWSER, HOST, LEGACY_REFUSED, RELAYED, TOKEN_BINDING, UNRESOLVED, Refusal
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.session import Session

_PLAIN_SESSIONS = (Session.LEGACY, Session.FALLBACK)


@dataclass(frozen=True, slots=True)
class Decision:
    """`refusal` is in force; `would_refuse` is what audit (or passthrough) let go, for the log."""

    refusal: Refusal | None = None
    would_refuse: Refusal | None = None


ALLOWED = Decision()


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force: `mode` upgrade, enforce or passthrough; `enforcing` for refusals by identity."""

    mode: str
    enforcing: bool
    sensitive: SensitivePaths

    def decide(
        self,
        request: Request,
        session: Session,
        hosts: Container[bytes],
        resolved: bool,
        bound_elsewhere: bool = False,
    ) -> Decision:
        """The decision for one request.

        `hosts` are the accepted Host values; `resolved` says whether the caller has a name;
        `bound_elsewhere` that its token was given to another identity.
        """
        form = self._form(request, session, hosts)
        if self.mode == "passthrough":
            return Decision(would_refuse=form) if form else ALLOWED
        if form:
            return Decision(refusal=form)
        if self.mode == "enforce" and session in _PLAIN_SESSIONS:
            return Decision(refusal=LEGACY_REFUSED)
        who = self._who(request, session, resolved, bound_elsewhere)
        if who is None:
            return ALLOWED
        return Decision(refusal=who) if self.enforcing else Decision(would_refuse=who)

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

    def _who(
        self, request: Request, session: Session, resolved: bool, bound_elsewhere: bool
    ) -> Refusal | None:
        if bound_elsewhere:
            return TOKEN_BINDING
        if session is not Session.TOKEN and not resolved and self.sensitive.match(request.target.segments):
            return UNRESOLVED
        return None
