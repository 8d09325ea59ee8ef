"""The redirect in the daemon's life: put up, renewed twice a second, looked after, taken down.

Ties `intercept` to the event loop: what a redirect is, and what the kernel is asked for, is known there.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from imds_proxy.config import Address, Intercept
from imds_proxy.intercept import passing
from imds_proxy.intercept.addresses import drop_all, hold_all
from imds_proxy.intercept.conflicts import standing_conflicts
from imds_proxy.intercept.libnftables import LowDescriptor
from imds_proxy.intercept.methods import Method, put_up
from imds_proxy.intercept.preflight import check_mark, check_route, cloud_init_is_busy
from imds_proxy.intercept.redirect import LEASE, RENEWAL, InterceptError, Plan, Redirect
from imds_proxy.intercept.report import Report
from imds_proxy.server.listener import Listener
from imds_proxy.server.log import Log

_ADDRESS_SECONDS, _RENEW_ADDRESS = 60, 15.0
T = TypeVar("T")
_LAST_CONNECT = 0.05  # seconds: some turns of the loop


@dataclass(frozen=True, slots=True)
class House:
    """What the redirect needs of the daemon.

    `listen` begins to serve at an address (raises OSError); `mark` sets the mark of the proxy's own calls
    (None: none); `peers` gives the callers' ends of open connections; `dismiss` lets connections that were
    accepted at these hosts end in good order, within a bounded time.
    """

    listen: Callable[[Address], Listener]
    mark: Callable[[int | None], None]
    peers: Callable[[], Collection[Address]]
    dismiss: Callable[[Collection[str]], Awaitable[None]]


class Interception:
    """What `intercept up`, `down` and `status` ask for. `clock` gives seconds since boot."""

    def __init__(
        self,
        config: Intercept,
        services: Sequence[Address],
        methods: Mapping[str, Method],
        house: House,
        log: Log,
        clock: Callable[[], float],
        cloud_init: Path = Path("/run/cloud-init"),
        descriptor: LowDescriptor | None = None,
    ) -> None:
        """`methods` by their names; `auto` tries them in their order.

        `descriptor` is kept for libnftables, below those of all sockets: a process that dies lets go of its
        lowest last, and so of the table when callers have been told.
        """
        self._config, self._services, self._methods = config, tuple(services), methods
        self._house, self._log, self._clock, self._cloud_init = house, log, clock, cloud_init
        self._lock = asyncio.Lock()
        # Other tools' transactions may hold the kernel's rules for long: the loop does not wait for them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redirect")
        self._turn = threading.Lock()
        self._descriptor = descriptor or LowDescriptor()
        self._redirect: Redirect | None = None
        self._plan: Plan | None = None
        self._held: list[Address] = []
        self._notes: list[str] = []
        self._renewed = self._address_renewed = 0.0
        self._lost = self._released = False
        self.listeners: list[Listener] = []

    @property
    def redirect(self) -> Redirect | None:
        """What is up, for who keeps its descriptors; None where nothing is."""
        return self._redirect

    @property
    def state(self) -> str:
        """`redirect`: in force; `down`: it should be and is not; `none`: nobody asked for it, or it was
        taken down."""
        if self._redirect is None:
            return "none"
        return "down" if self._lost else "redirect"

    async def up(self) -> None:
        """Puts the redirect in force; a second time changes nothing.

        Raises InterceptError: then all is as it was before.
        """
        async with self._lock:
            if self._redirect is None:
                try:
                    await self._up()
                except InterceptError:
                    await self._undo()
                    raise

    async def down(self) -> bool:
        """Takes the redirect away: new calls go to the service at once, those under way are answered.

        Whether it was up. Raises InterceptError: then it stays.
        """
        async with self._lock:
            if self._redirect is None:
                return False
            await self._aside(self._redirect.open_way)
            await self._dismiss()
            await self._aside(self._redirect.down)
            await self._undo()
            self._log.event("not-intercepting", "calls go to the metadata service itself")
            return True

    def release(self) -> None:
        """The daemon stops: new calls go to the service, or are refused. Its drain closes `listeners`."""
        with self._turn:
            self._released = True
            if self._redirect is not None and not self._outlives:
                with suppress(InterceptError):  # it lapses then
                    self._redirect.open_way()

    def finish(self) -> None:
        """The daemon has stopped: redirect and address go, unless they outlive it."""
        with self._turn:
            if self._redirect is not None:
                self._redirect.release()
        if not self._outlives:
            self._drop()
        self._thread.shutdown(wait=False)

    async def watch(self) -> None:
        """Renews the redirect for as long as the event loop turns."""
        while True:
            await asyncio.sleep(RENEWAL)
            async with self._lock:
                if self._redirect is not None:
                    await self._look_after()

    async def report(self) -> Report:
        """What is in force, and which connections go past it. Raises OSError."""
        loop = asyncio.get_running_loop()
        peers = self._house.peers()
        past = await loop.run_in_executor(
            None, lambda: passing.described(passing.passing(self._services, peers))
        )
        services = [str(service) for service in self._services]
        if self._redirect is None or self._plan is None:
            return Report("off", True, self._config.on_failure, services=services, passing=past)
        status = await self._aside(self._redirect.status)
        return Report(
            "in-force" if status.in_force else "lapsed",
            True,
            self._config.on_failure,
            status.method,
            status.held_by,
            status.name,
            services,
            [str(listener) for listener in self._plan.listeners],
            self._plan.forwarded,
            [*self._notes, *status.notes],
            past,
        )

    async def take_over(self) -> int:
        """Closes the connections that go past the redirect, so that their programs connect again: how many.

        Raises InterceptError, OSError.
        """
        await asyncio.sleep(_LAST_CONNECT)  # who was redirected by now is accepted, and so known
        loop, peers = asyncio.get_running_loop(), self._house.peers()
        closed = await loop.run_in_executor(
            None, lambda: passing.close(passing.passing(self._services, peers))
        )
        self._log.event("taken-over", "connections that went past the redirect were closed", count=closed)
        return closed

    async def _up(self) -> None:
        check_route(self._services)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, standing_conflicts, self._services)  # of any length
        self._notes += [str(conflict) for conflict in found]
        self._house.mark(check_mark(self._config.mark, self._config.exempt_uid))
        self._held = hold_all(self._config.address, self._address_seconds)
        if len(self._held) < len(self._config.address):
            self._notes.append("IPv6 is off on lo: calls by IPv6 are not redirected")
        for address in self._held:
            try:
                self.listeners.append(self._house.listen(address))
            except OSError as error:
                raise _cannot_listen(address, error) from None
        plan = Plan(
            services=self._services,
            listeners=tuple(self._held),
            mark=self._config.mark,
            exempt_uid=self._config.exempt_uid or None,
            forwarded=self._config.forwarded,
            closed=self._closes_now,
            owner_table=self._config.owner_table,
        )
        self._descriptor.give()
        self._redirect, self._plan = await self._start(plan), plan
        self._renewed = self._address_renewed = self._clock()
        status = await self._aside(self._redirect.status)
        self._log.event(
            "intercepting",
            "calls to the metadata service are redirected to this proxy",
            method=status.method,
            held_by=status.held_by,
            table=status.name,
            on_failure=self._config.on_failure,
            notes=[*self._notes, *status.notes] or None,
        )

    async def _start(self, plan: Plan) -> Redirect:
        """Raises InterceptError."""
        start = partial(put_up, self._methods, self._config.method, plan)
        redirect, notes = await self._aside(start)
        self._notes += notes
        return redirect

    async def _aside(self, work: Callable[[], T]) -> T:
        """What the work returns, or raises; one at a time, off the loop."""

        def in_turn() -> T:
            with self._turn:
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_turn)

    async def _dismiss(self) -> None:
        """What callers have asked is answered, and their connections end."""
        await asyncio.sleep(_LAST_CONNECT)  # who has connected by now is accepted
        for listener in self.listeners:
            listener.close()
        await self._house.dismiss([address.host for address in self._held])

    async def _undo(self) -> None:
        """Leaves nothing behind."""
        self._redirect = self._plan = None
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        self._drop()
        self._notes.clear()
        self._house.mark(None)
        self._descriptor.keep()

    def _drop(self) -> None:
        drop_all(self._held)
        self._held.clear()

    async def _look_after(self) -> None:
        now = self._clock()
        stood_still, self._renewed = now - self._renewed, now
        if stood_still > LEASE:
            self._log.event(
                "redirect-lapsed",
                "the daemon stood still, so that the redirect lapsed",
                seconds=round(stood_still, 1),
            )
        try:
            if self._closes_now and self._plan is not None and not self._plan.closed:
                await self._close()
            if now - self._address_renewed >= _RENEW_ADDRESS:  # first, else calls would come to no address
                self._address_renewed = now
                hold_all(self._held, self._address_seconds)
            amiss = await self._aside(self._renew)
        except InterceptError as error:
            if not self._lost:
                self._lost = True
                self._log.event("redirect-lost", str(error))
            return
        if amiss is not None or self._lost:
            self._lost = False
            self._log.event("redirect-put-back", amiss or "it is in force again")

    def _renew(self) -> str | None:
        return None if self._released or self._redirect is None else self._redirect.renew()

    async def _close(self) -> None:
        """Cloud-init is done: from now on `on_failure: closed` holds. Raises InterceptError."""
        if self._redirect is None or self._plan is None:
            return
        hold_all(self._held, None)
        plan = replace(self._plan, closed=True)
        before = self._redirect
        if (await self._aside(before.status)).held_by != "owner-table":
            await self._aside(before.down)
        # A table that is owned has a name of its own, and goes when the next is there: translation goes on.
        self._redirect, self._plan = await self._start(plan), plan
        await self._aside(before.down)
        self._notes.clear()
        self._log.event("closed", "cloud-init is done: without the proxy calls are refused from now on")

    @property
    def _outlives(self) -> bool:
        """Whether the redirect is to stay without the daemon."""
        return self._plan is not None and self._plan.closed

    @property
    def _closes_now(self) -> bool:
        if self._config.on_failure != "closed":
            return False
        return not cloud_init_is_busy(self._cloud_init)

    @property
    def _address_seconds(self) -> int | None:
        return None if self._closes_now else _ADDRESS_SECONDS


def _cannot_listen(address: Address, error: OSError) -> InterceptError:
    if error.errno == errno.EADDRINUSE:
        remedy = f"stop it (ss -ltnp 'sport = :{address.port}'), or set intercept.address"
        return InterceptError("port-busy", f"another program listens at {address}", remedy)
    if error.errno == errno.EACCES:
        remedy = "it needs CAP_NET_BIND_SERVICE, or intercept.address with a port from 1024"
        return InterceptError("no-capability", f"this user may not listen at {address}", remedy)
    return InterceptError("cannot-listen", f"cannot listen at {address}: {error.strerror}")
