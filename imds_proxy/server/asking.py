"""Misses that wait for nobody but the service: asked at once, without a task, and again by heart.

Decides nothing: whoever asks has decided that before, or it was decided for an errand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from imds_proxy.errors import RATE, Refused
from imds_proxy.ledger.tally import Cell
from imds_proxy.policy.decision import Decision, Policy
from imds_proxy.policy.limits import CallerLimits
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.session import FALLBACK_WINDOW, Session
from imds_proxy.server.endings import Endings
from imds_proxy.server.peer import Peer
from imds_proxy.server.pending import Deadlines, Pending
from imds_proxy.server.plans import Errand, InForce, Standing
from imds_proxy.upstream.cache import AnswerCache

LEAST = 0.05  # seconds for what needs no waiting, also when a pipelined request came to its turn too late


class Asking:
    """Asks through the cache. `deadline` in seconds, `clock` of CLOCK_BOOTTIME; `standing` tells what may be
    learnt of a request, `bump` counts one like those before."""

    def __init__(
        self,
        service: InForce,
        cache: AnswerCache,
        limits: CallerLimits,
        endings: Endings,
        standing: Callable[[Request, Peer, Session], Standing | None],
        bump: Callable[[Cell], None],
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._service, self._cache, self._limits = service, cache, limits
        self._endings, self._standing, self._bump = endings, standing, bump
        self._deadline, self._clock, self.deadlines = deadline, clock, Deadlines(clock)

    def ask(
        self,
        request: Request,
        peer: Peer,
        session: Session,
        decision: Decision,
        arrived: float,
        cached: bool,
        known: bytes | None,
    ) -> Answer | Pending | None:
        """Begins to ask, or refuses; None where that cannot be done at once. An errand is kept for a head
        that is `known`."""
        target, identity = request.target, peer.caller.identity
        if request.item is ItemClass.NEVER or not self._cache.may_ask(target, cached=cached):
            return None
        now = self._clock()
        if wait := self._limits.miss(identity, now):
            return self._endings.refuse(request, peer, session, too_fast(wait, "limits.misses"))
        pending, policy = Pending(), self._service.policy

        def over(result: Answer | Exception) -> None:
            if pending.over:  # its time was over before
                return
            answer = self._endings.ended(request, peer, session, decision.would_refuse, result)
            if known is not None and decision.would_refuse is None and answer.status == 200:
                self._learn(known, request, peer, session, decision, policy, cached)
            pending.bring(answer)

        self.deadlines.add(max(now + LEAST, arrived + self._deadline), pending, over)
        self._cache.ask(target, request.item, identity, target.is_twin, over)
        return pending

    def again(self, errand: Errand, peer: Peer, now: float) -> Answer | Pending | None:
        """The same by heart; None where something has changed that it rested on."""
        request, standing = errand.request, errand.standing
        if (
            errand.policy is not self._service.policy
            or now >= standing.until
            or now - peer.failure.at <= FALLBACK_WINDOW
            or not self._cache.may_ask(request.target, cached=errand.cached)
            or not errand.hits.take(now)
        ):
            return None
        if not errand.misses.take(now):
            error = too_fast(errand.misses.wait(now), "limits.misses")
            return self._endings.refuse(request, peer, errand.session, error)
        pending = Pending()

        def over(result: Answer | Exception) -> None:
            if pending.over:
                return
            if isinstance(result, Answer) and result.status == 200:
                self._bump(standing.cell)
                pending.bring(result)
            else:
                pending.bring(self._endings.ended(request, peer, errand.session, None, result))

        self.deadlines.add(now + self._deadline, pending, over)
        target = request.target
        self._cache.ask(target, request.item, peer.caller.identity, target.is_twin, over)
        return pending

    def _learn(
        self,
        known: bytes,
        request: Request,
        peer: Peer,
        session: Session,
        decision: Decision,
        policy: Policy,
        cached: bool,
    ) -> None:
        standing = self._standing(request, peer, session)
        if standing is None or not request.keep_alive or policy is not self._service.policy:
            return
        now, identity = self._clock(), peer.caller.identity
        hits = self._limits.bucket(identity, decision.rule, now)
        misses = self._limits.of_misses(identity, now)
        errand = Errand(request, session, policy, standing, hits, misses, cached)
        peer.remembered.keep_errand(known, errand)


def too_fast(wait: float, which: str) -> Refused:
    """The refusal of a caller that asks faster than a limit allows; `wait` in seconds."""
    return Refused(RATE, which, retry_after=max(1, math.ceil(wait)))
