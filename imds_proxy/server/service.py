"""One request to one answer: session, decision, token or item, record.

Ties policy to upstream; knows nothing of bytes on a connection.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from imds_proxy.errors import LOOP, SHARED_SOCKET, TOKEN_INVALID, Refusal, Refused
from imds_proxy.policy.caller import Identity
from imds_proxy.policy.decision import Policy
from imds_proxy.policy.limits import CallerLimits
from imds_proxy.policy.rules import Rule
from imds_proxy.protocol.profile import ItemClass, Profile
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.responses import Answer, plain
from imds_proxy.protocol.session import Session, session_kind
from imds_proxy.protocol.tokens import parse_ttl
from imds_proxy.server.asking import LEAST, Asking, too_fast
from imds_proxy.server.endings import Endings, cell_of
from imds_proxy.server.events import RequestEvents
from imds_proxy.server.peer import Peer
from imds_proxy.server.pending import Pending, following
from imds_proxy.server.plans import Entry, Lasting, Plan, Standing
from imds_proxy.server.tokendesk import ForeignDesk, TokenMaker, Verdict
from imds_proxy.upstream.cache import AnswerCache, Served
from imds_proxy.upstream.flight import follow, look_at, wait_until
from imds_proxy.upstream.reader import ServiceReader


class Service:
    """Answers requests. `clock` gives seconds of CLOCK_BOOTTIME, `deadline` is in seconds."""

    def __init__(
        self,
        policy: Policy,
        profile: Profile,
        reader: ServiceReader,
        tokens: TokenMaker,
        foreign: ForeignDesk,
        events: RequestEvents,
        limits: CallerLimits,
        cache: AnswerCache,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.policy, self._profile, self._reader = policy, profile, reader
        self._tokens, self._foreign, self.events = tokens, foreign, events
        self._deadline, self._clock = deadline, clock
        self._endings = endings = Endings(events, clock)
        self._asking = Asking(self, cache, limits, endings, self._standing, events.bump, deadline, clock)
        self.again = self._asking.again
        self.cache = cache

    def begin(
        self, request: Request, peer: Peer, arrived: float, known: bytes | None = None
    ) -> Answer | Pending:
        """The answer where nothing has to be waited for, else what will bring it.

        `arrived` is when the last byte of the head came (seconds, CLOCK_BOOTTIME): the deadline counts
        from there. `known` is the head, where it came before: a plan may be kept for it.
        """
        now = self._clock()
        session = session_kind(request.is_put, request.token is not None, peer.failure.at, now)
        if peer.caller.is_self:
            return self._endings.refuse(request, peer, session, Refused(LOOP))
        memo = peer.remembered.decisions
        if self.policy.mode == "passthrough":
            decision = self.policy.decide(request, session, peer.hosts, peer.caller, memo)
            return self._finish(request, peer, session, decision.would_refuse, self._pass(request), arrived)
        if session is Session.HARDENED and not self._tokens.ready:
            return following(self._begin_prepared(request, peer, session, arrived))
        identity = peer.caller.identity
        verdict = Verdict.VALID
        if session is Session.HARDENED and request.token is not None:
            verdict = self._tokens.judge(request.token, identity, now)
            if verdict is Verdict.FOREIGN and self._foreign.is_accepted(request.token, identity):
                verdict = Verdict.VALID
        decision = self.policy.decide(
            request, session, peer.hosts, peer.caller, memo, verdict is Verdict.ELSEWHERE
        )
        if decision.refusal is not None:
            return self._endings.refuse(request, peer, session, Refused(decision.refusal))
        wait = self.limits.hit(identity, decision.rule, now)
        if session is Session.TOKEN:
            return self._token(request, peer, arrived, wait, known)
        if wait:
            return self._endings.refuse(
                request, peer, session, too_fast(wait, "limits.hits, or its rule's rate")
            )
        if verdict is Verdict.INVALID:
            return self._endings.refuse(request, peer, session, Refused(TOKEN_INVALID))
        foreign = verdict is Verdict.FOREIGN
        cached = decision.rule is None or decision.rule.cache
        at_once = not foreign and not decision.exclusive
        if cached and at_once:
            entry = self.cache.entry(request.target, now)
            if entry is not None:
                entry.hits += 1
                entry.used_at = now
                self._endings.record(request, peer, session, entry.answer.status, None, decision.would_refuse)
                if known is not None and entry.answer.status == 200 and decision.would_refuse is None:
                    wire = entry.wire(request.method == "HEAD", request.keep_alive)
                    self._learn(known, request, peer, session, decision.rule, entry, wire)
                return entry.answer
        if at_once:
            asked = self._asking.ask(request, peer, session, decision, arrived, cached, known)
            if asked is not None:
                return asked
        work = self._work(request, peer, session, decision.exclusive, foreign, arrived, cached)
        return self._finish(request, peer, session, decision.would_refuse, work, arrived)

    async def _work(
        self,
        request: Request,
        peer: Peer,
        session: Session,
        exclusive: bool,
        foreign: bool,
        arrived: float,
        cached: bool,
    ) -> Served:
        """What has to be waited for."""
        if exclusive:
            await self._ask_holders(request, session, peer)
        if foreign:
            return Served(await self._foreign_read(request, peer))
        return await self._read(request, peer.caller.identity, arrived, cached)

    async def _begin_prepared(self, request: Request, peer: Peer, session: Session, arrived: float) -> Answer:
        """What `begin` answers once presented tokens can be judged (soon after a start)."""
        preparing = asyncio.get_running_loop().create_task(self._tokens.prepare())
        preparing.add_done_callback(look_at)
        try:
            await wait_until(preparing, arrived + self._deadline - self._clock())
            result = self.begin(request, peer, arrived)
        except Exception as error:  # a refusal, or a defect of ours
            return self._endings.ended(request, peer, session, None, error)
        return result if isinstance(result, Answer) else await result

    def abandoned(self, peer: Peer, request: Request) -> None:
        """The client left before its answer: for a hardened one, a failure that a plain GET may follow."""
        if request.is_put or request.token is not None:
            peer.failure.note(self._clock(), f"{_asked(request)}:left")

    def _learn(
        self,
        known: bytes,
        request: Request,
        peer: Peer,
        session: Session,
        rule: Rule | None,
        entry: Entry,
        wire: bytes,
    ) -> None:
        """Keeps how this request was answered (allowed, nothing to report), for the next with its head."""
        standing = self._standing(request, peer, session)
        if standing is None:
            return
        bucket = self.limits.bucket(peer.caller.identity, rule, self._clock())
        until, cell, bump = standing.until, standing.cell, self.events.bump
        plan = Plan(wire, entry, until, self, self.policy, bucket, cell, bump, not request.keep_alive)
        peer.remembered.keep(known, plan)

    def _standing(self, request: Request, peer: Peer, session: Session) -> Standing | None:
        """What plans and errands rest on; None where nothing may be learnt."""
        until = math.inf
        if session is Session.HARDENED and request.token is not None:
            until = self._tokens.valid_until(request.token, peer.caller.identity)
        cell = cell_of(request, peer, session)
        usable = session is not Session.FALLBACK and self._clock() < until
        return Standing(until, cell) if usable and cell is not None else None

    def _token(
        self, request: Request, peer: Peer, arrived: float, wait: float, known: bytes | None
    ) -> Answer | Pending:
        identity = peer.caller.identity
        try:
            ttl = parse_ttl(request.ttl, self._profile)
        except Refused as error:
            return self._endings.refuse(request, peer, Session.TOKEN, error)
        again = self._tokens.again(identity, ttl)
        if again is not None and not wait:
            answer = _token_answer(again.token)
            self._endings.record(request, peer, Session.TOKEN, answer.status, None, None)
            if known is not None:
                wire = answer.encode(head_only=False, keep_alive=request.keep_alive)
                self._learn(known, request, peer, Session.TOKEN, None, Lasting(again.until), wire)
            return answer

        async def issue() -> Served:
            # Delayed, never refused: a client whose PUT fails goes on in normal mode.
            await asyncio.sleep(min(wait, self._deadline / 2))
            return Served(_token_answer(await self._tokens.issue(identity, ttl)))

        return self._finish(request, peer, Session.TOKEN, None, issue(), arrived)

    async def _ask_holders(self, request: Request, session: Session, peer: Peer) -> None:
        """Raises Refused when a process that holds this connection may not read the item."""
        for holder in await peer.holders():
            decision = self.policy.of_item(request.target.segments, session, holder)
            if decision.refusal is not None:
                who = holder.process.pid if holder.process else holder.why_unresolved
                raise Refused(SHARED_SOCKET, f"process {who}: {decision.refusal.slug}")

    async def _read(self, request: Request, identity: Identity, arrived: float, cached: bool) -> Served:
        target, item, now = request.target, request.item, self._clock()
        if cached:
            answer = self.cache.fresh(target, now)
            if answer is not None:
                return Served(answer)
            spare = self.cache.spare(target) if self.cache.has_failed(target) else None
            if spare is not None:
                return spare
        if item is ItemClass.NEVER or not self.cache.is_asked(target):
            wait = self.limits.miss(identity, now)
            spare = self.cache.spare(target) if wait and cached else None
            if spare is not None:
                return spare
            if wait:
                raise too_fast(wait, "limits.misses")
        until = arrived + self._deadline
        return await self.cache.read(target, item, identity, until, target.is_twin, cached=cached)

    async def _foreign_read(self, request: Request, peer: Peer) -> Answer:
        token = request.token
        if token is None:
            raise AssertionError("a foreign token is a token")
        answer = await self._foreign.try_on_service(token, peer.caller.identity, request.target, request.item)
        if answer is None:
            raise Refused(TOKEN_INVALID)
        return answer

    async def _pass(self, request: Request) -> Served:
        headers = list(request.evidence)
        if request.is_put and request.ttl is not None:
            headers.append((self._profile.ttl_header, request.ttl))
        if request.token is not None:
            headers.append((self._profile.token_header, request.token.encode("latin-1")))
        return Served(
            await self._reader.forward(request.method, request.target, request.item, tuple(headers))
        )

    def _finish(
        self,
        request: Request,
        peer: Peer,
        session: Session,
        would_refuse: Refusal | None,
        work: Coroutine[Any, Any, Served],
        arrived: float,
    ) -> Pending:
        """Waits for the work until the deadline; past it the work goes on for the next who asks."""
        pending, now = Pending(), self._clock()

        def over(result: Served | Exception) -> None:
            if pending.over:
                return
            stale = isinstance(result, Served) and result.stale
            answer = result.answer if isinstance(result, Served) else result
            pending.bring(self._endings.ended(request, peer, session, would_refuse, answer, stale))

        until = max(now + LEAST, arrived + self._deadline)
        self._asking.deadlines.add(until, pending, over)
        follow(work, over)
        return pending


def _asked(request: Request) -> str:
    session = Session.TOKEN if request.is_put else Session.HARDENED
    return str(session.value)


def _token_answer(token: str) -> Answer:
    # No newline: clients use the body as it is (CLIENTS).
    return plain(200, token.encode("latin-1"))
