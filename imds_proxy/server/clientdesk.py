"""Which client each caller uses, found out beside the requests and told to the log and the ledger.

Takes a process in sight while it waits for its answer, has it looked at in a thread, once for each stable
caller and kind of call, and keeps the verdict. Thin: `clients` looks and judges.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from imds_proxy.callers.script import script_of
from imds_proxy.clients.evidence import Evidence, shown
from imds_proxy.clients.sight import Sight, take_sight
from imds_proxy.clients.usage import Call, Usage
from imds_proxy.ledger.entries import Described, StableCaller
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Caller
from imds_proxy.protocol.session import Session
from imds_proxy.server.log import Log
from imds_proxy.server.looking import LookingThread

_MAX_CALLS = 64  # kinds of calls of one caller that are kept
_AGAIN = 60.0  # seconds between looks at one caller
_MAX_DUE = 1024  # callers that wait for a verdict
_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox")
_STARTERS = ("env", "timeout", "nice", "nohup", "setsid", "sudo", "xargs", "flock", "time", "ionice")
_MAX_AGENT = 160
_NOT_LOOKED_AT = Evidence(missing="its process could not be looked at")

if TYPE_CHECKING:
    from imds_proxy.clients.advice import Verdict

Facts = Callable[[Caller], dict[str, Any]]
"""What a log line says of a caller."""


@dataclass(slots=True)
class _Known:
    """What is known of one stable caller. `evidence` belongs to the looking thread."""

    caller: Caller
    calls: dict[Call, None] = field(default_factory=dict)
    evidence: Evidence | None = None
    looked_at: float = float("-inf")
    verdict: Verdict | None = None


class ClientDesk:
    """Of the event loop's thread. `clock` gives seconds, monotonic; `facts` what a log line says."""

    def __init__(self, log: Log, facts: Facts, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._facts, self._clock = log, facts, clock
        self._known: LRUCache[bytes, _Known] = LRUCache(4096)
        self._looks = TokenBucket(10, 40, clock())
        self._verdicts = TokenBucket(20, 100, clock())
        self._due: dict[bytes, _Known] = {}
        self._thread = LookingThread(self._gave_up)
        self._described: dict[bytes, Described] = {}

    def saw(
        self, caller: Caller, stable: StableCaller, session: Session, agent: str, path: str, cause: str
    ) -> None:
        """Takes a kind of call that is new. Call it before the caller has its answer: its process waits."""
        if session is Session.TOKEN or caller.is_self:
            return
        key = stable.key
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(caller)
        call = Call(shown(agent, _MAX_AGENT) if agent else None, path, session, cause)
        if call in known.calls or len(known.calls) >= _MAX_CALLS:
            return
        known.calls[call] = None
        sight = None
        if session is not Session.HARDENED and self._clock() - known.looked_at > _AGAIN:
            sight = self._take(caller)
        if sight is not None:
            known.looked_at, known.caller = self._clock(), caller
            self._examine(key, known, sight)  # at once: the process may end soon
            return
        if len(self._due) < _MAX_DUE:
            self._due[key] = known
        self._work_off()

    def take(self) -> list[Described]:
        """The verdicts that are new since the last call; to be called now and then."""
        self._work_off()
        taken = list(self._described.values())
        self._described.clear()
        return taken

    def close(self) -> None:
        """Ends the thread."""
        self._thread.close()

    def _take(self, caller: Caller) -> Sight | None:
        process = caller.process
        if process is None or not self._looks.take(self._clock()):
            return None
        return take_sight(process.pid, caller.start_ticks)

    def _work_off(self) -> None:
        """What is due goes to the thread, at a bounded rate: a caller with many kinds of calls waits, and is
        judged once for all of them."""
        while self._due and self._verdicts.take(self._clock()):
            key = next(iter(self._due))
            if not self._examine(key, self._due[key], None):
                return
            del self._due[key]

    def _examine(self, key: bytes, known: _Known, sight: Sight | None) -> bool:
        loop, caller = asyncio.get_running_loop(), known.caller
        words = caller.process.cmdline if caller.process else ()
        command = words[0] if words else None

        def work() -> None:
            # Where it begins, so that no start waits for what names clients.
            from imds_proxy.clients.advice import judge
            from imds_proxy.clients.catalogue import catalogue

            if sight is not None:
                from imds_proxy.clients.look import look  # 2 MiB that only a caller in normal mode costs

                with sight:
                    known.evidence = look(
                        sight, catalogue(), caller.script, caller.container_image, command=command
                    )
            usage = usage_of(caller, tuple(known.calls))
            verdict = judge(catalogue(), usage, known.evidence or _NOT_LOOKED_AT)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._learnt, key, known, verdict)

        taken = self._thread.put(work)
        if not taken and sight is not None:
            sight.close()
        return taken

    def _learnt(self, key: bytes, known: _Known, verdict: Verdict) -> None:
        if verdict == known.verdict or (verdict.client is None and not verdict.findings):
            return
        known.verdict = verdict
        described = describe(key, verdict)
        self._described[key] = described
        self._log.event(
            "client",
            "what a caller uses, and what to change",
            **self._facts(known.caller),
            client=described.client,
            findings=list(described.findings),
            advice=described.advice,
            fix=described.fix,
            credentials=described.credentials,
        )

    def _gave_up(self, hung: int) -> None:
        self._log.event(
            "client-look-hangs",
            "a look at a caller's files does not end and was left behind",
            detail=f"{hung} so far; after the third there are no more until a restart",
        )


def usage_of(caller: Caller, calls: tuple[Call, ...]) -> Usage:
    """A caller's calls with what is known of its process."""
    process = caller.process
    return Usage(calls, process.exe if process else None, caller.script, _shell_script(caller))


def describe(key: bytes, verdict: Verdict) -> Described:
    """A verdict in the ledger's form."""
    client = verdict.client
    return Described(
        key=key,
        client=(
            None
            if client is None
            else {"name": client.name, "version": client.version, "where": client.where}
        ),
        findings=tuple({"slug": one.slug, "sentence": one.sentence} for one in verdict.findings),
        advice=verdict.advice,
        fix=verdict.fix,
        credentials=verdict.credentials,
    )


def _shell_script(caller: Caller) -> str | None:
    """The script of the shell that started the caller, itself or by a program that only starts others, as
    the shell's command line calls it."""
    for parent in caller.parents:
        name = (parent.exe or "").rpartition("/")[2]
        if name in _SHELLS:
            script = script_of(name, parent.cmdline)
            return script if script and not script.startswith(("-", "/dev/fd/")) else None
        if name not in _STARTERS:
            return None
    return None
