"""The cutover of many instances: a few at a time, each checked, set, verified, watched; back where it fails.

Ties the API, the probes and the journal; what is right and wrong is decided in `steps`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from imds_proxy.cutover.ecs import CloudError
from imds_proxy.cutover.journal import DONE, FAILED, ROLLED_BACK, SETTING, WATCHING, Journal
from imds_proxy.cutover.probing import Prober
from imds_proxy.cutover.steps import Instance, Probe, broken_by, objections

_ATTEMPTS = 3  # at the way back


class Cloud(Protocol):
    """The API, or a stand-in."""

    def describe(self, ids: Sequence[str]) -> Mapping[str, Instance]:
        """The instances that there are of these. Raises CloudError."""

    def set_tokens(self, instance: str, tokens: str) -> None:
        """Sets HttpTokens. Raises CloudError."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How it is done. Times in seconds: `settle` for the change to show, `watch` before it counts as done,
    `every` between probes; `tolerated` failures of callers while it is watched; `verdicts` by instance."""

    parallel: int = 1
    settle: float = 60.0
    watch: float = 300.0
    every: float = 5.0
    tolerated: int = 0
    dry_run: bool = False
    verdicts: Mapping[str, str] | None = None


class Rollout:
    """Runs a cutover; `say` gets a line for people at each step, from any thread."""

    def __init__(
        self,
        cloud: Cloud,
        probe: Prober,
        journal: Journal,
        terms: Terms,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cloud, self._probe, self._journal, self._terms = cloud, probe, journal, terms
        self._say, self._clock, self._sleep = say, clock, sleep

    def run(self, ids: Sequence[str]) -> bool:
        """Whether all are (or, in a dry run, could be) cut over. Stops after the batch of the first that is
        not. Raises CloudError where the instances cannot be looked at, OSError for the journal."""
        instances = self._cloud.describe(ids)
        with ThreadPoolExecutor(self._terms.parallel, thread_name_prefix="cutover") as threads:
            for start in range(0, len(ids), self._terms.parallel):
                batch = ids[start : start + self._terms.parallel]
                results = list(threads.map(lambda one: self._one(one, instances.get(one)), batch))
                if not all(results):
                    left = len(ids) - start - len(batch)
                    if left:
                        self._say(f"stopped: {left} more were not touched")
                    return False
        return True

    def roll_back(self, ids: Sequence[str]) -> bool:
        """Sets `optional` again. Whether that worked for all."""
        went_back = [self._back(one, "asked for") for one in ids]  # each, also after one that failed
        return all(went_back)

    def _one(self, name: str, instance: Instance | None) -> bool:
        if instance is None:
            self._say(f"{name}: there is no such instance in this region")
            return False
        before_it = self._journal.state(name)
        unfinished = before_it in (SETTING, WATCHING)
        if instance.is_required and not unfinished:
            self._say(f"{name}: HttpTokens is required already")
            return True
        against = list(objections(instance, (self._terms.verdicts or {}).get(name)))
        if against and not unfinished:
            self._say(f"{name}: not touched: {'; '.join(against)}")
            return False
        before = self._probe(instance)
        if before.v2 != 200:
            self._say(f"{name}: not touched: {before}; it must serve calls with a token before")
            return False
        if self._terms.dry_run:
            self._say(f"{name}: would be set to required ({before})")
            return True
        return self._cut_over(instance, before)

    def _cut_over(self, instance: Instance, before: Probe) -> bool:
        name = instance.id
        try:
            if not instance.is_required:
                self._journal.note(name, SETTING)
                self._cloud.set_tokens(name, "required")
                self._say(f"{name}: HttpTokens=required is set")
        except CloudError as error:
            # It may have been taken all the same: only the way back leaves no doubt.
            return self._fail(name, f"it could not be set: {error}")
        why = self._settle(instance)
        if why is None:
            self._journal.note(name, WATCHING)
            self._say(f"{name}: plain GETs are refused, calls with a token are served; watching")
            why = self._watch(instance, before)
        if why is not None:
            return self._fail(name, why)
        self._journal.note(name, DONE)
        self._say(f"{name}: done")
        return True

    def _settle(self, instance: Instance) -> str | None:
        until = self._clock() + self._terms.settle
        while not (now := self._probe(instance)).is_hardened:
            if self._clock() >= until:
                return f"it does not show: {now}"
            self._sleep(self._terms.every)
        return None

    def _watch(self, instance: Instance, before: Probe) -> str | None:
        until = self._clock() + self._terms.watch
        suspicion = None
        while self._clock() < until:
            self._sleep(self._terms.every)
            why = broken_by(before, self._probe(instance), self._terms.tolerated)
            if why is not None and suspicion is not None:
                return why
            suspicion = why  # once may be a restart of the daemon
        return suspicion

    def _fail(self, name: str, why: str) -> bool:
        self._say(f"{name}: {why}; going back to optional")
        self._back(name, why)
        return False

    def _back(self, name: str, why: str) -> bool:
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(self._terms.every)
            try:
                self._cloud.set_tokens(name, "optional")
                found = self._cloud.describe([name]).get(name)
                if found is not None and not found.is_required:
                    self._journal.note(name, ROLLED_BACK, why)
                    self._say(f"{name}: HttpTokens is optional again")
                    return True
                problem = "the API still says required"
            except CloudError as error:
                problem = str(error)
        self._journal.note(name, FAILED, why)
        self._say(f"{name}: GOING BACK FAILED ({problem}): set HttpTokens=optional by hand")
        return False
