"""A cutover over many instances, with a cloud and probes that do as they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from imds_proxy.cutover.ecs import CloudError
from imds_proxy.cutover.journal import DONE, FAILED, ROLLED_BACK, SETTING, WATCHING, Journal
from imds_proxy.cutover.rollout import Rollout, Terms
from imds_proxy.cutover.steps import Instance, Probe

NAMES = ["i-1", "i-2", "i-3", "i-4", "i-5"]


class Land:
    """A cloud whose instances answer as HttpTokens says, but those in `broken`. Time goes by sleeping."""

    def __init__(
        self, broken: Mapping[str, Probe] | None = None, stuck: frozenset[str] = frozenset()
    ) -> None:
        self.tokens = dict.fromkeys(NAMES, "optional")
        self.broken, self.stuck = broken or {}, stuck
        self.errors: list[str] = []
        self.said: list[str] = []
        self.now, self.unready = 0.0, False
        self.probed: Callable[[], None] = lambda: None

    def describe(self, ids: Sequence[str]) -> dict[str, Instance]:
        return {
            one: Instance(one, self.tokens[one], "enabled", "linux", "img", "v2")
            for one in ids
            if one in self.tokens
        }

    def set_tokens(self, instance: str, tokens: str) -> None:
        if self.errors:
            raise CloudError(self.errors.pop(0))
        if tokens == "optional" and instance in self.stuck:
            raise CloudError("Throttling")
        self.tokens[instance] = tokens

    def probe(self, instance: Instance) -> Probe:
        self.probed()
        if self.unready:
            return Probe(200, 503)
        required = self.tokens[instance.id] == "required"
        if required and instance.id in self.broken:
            return self.broken[instance.id]
        return Probe(403 if required else 200, 200)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def cut(self, journal: Journal, terms: Terms | None = None, names: Sequence[str] = NAMES) -> bool:
        terms = terms or Terms(verdicts=dict.fromkeys(NAMES, "READY"))
        rollout = Rollout(self, self.probe, journal, terms, self.said.append, lambda: self.now, self.sleep)
        return rollout.run(names)


def test_each_is_set_verified_watched_and_done() -> None:
    land, journal = Land(), Journal(None)
    assert land.cut(journal)
    assert set(land.tokens.values()) == {"required"}
    assert {journal.state(one) for one in NAMES} == {DONE}
    assert land.now >= 5 * 300, "each was watched for its time"


def test_a_dry_run_looks_at_everything_and_changes_nothing() -> None:
    land, journal = Land(), Journal(None)
    assert land.cut(journal, Terms(dry_run=True, verdicts=dict.fromkeys(NAMES, "READY")))
    assert set(land.tokens.values()) == {"optional"}
    assert [line for line in land.said if "would be set" in line]
    assert journal.state("i-1") is None


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_the_first_failure_goes_back_and_stops_the_rest(parallel: int) -> None:
    land, journal = Land({"i-2": Probe(403, 500)}), Journal(None)
    terms = Terms(parallel=parallel, verdicts=dict.fromkeys(NAMES, "READY"))
    assert not land.cut(journal, terms)
    assert journal.state("i-2") == ROLLED_BACK
    assert land.tokens["i-2"] == "optional"
    touched = {1: NAMES[:2], 2: NAMES[:2], 5: NAMES}[parallel]
    assert [one for one in NAMES if journal.state(one)] == touched
    assert all(land.tokens[one] == "required" for one in touched if one != "i-2")


def test_a_change_that_does_not_show_goes_back() -> None:
    land, journal = Land({"i-1": Probe(200, 200)}), Journal(None)
    assert not land.cut(journal)
    assert (journal.state("i-1"), land.tokens["i-1"]) == (ROLLED_BACK, "optional")
    assert any("does not show" in line for line in land.said)


def test_callers_that_fail_while_it_is_watched_send_it_back() -> None:
    land, journal = Land({"i-1": Probe(403, 200, failed=3)}), Journal(None)
    assert not land.cut(journal, names=["i-1"])
    assert land.tokens["i-1"] == "optional"
    assert land.cut(journal, Terms(tolerated=3, verdicts={"i-1": "READY"}), names=["i-1"])


def test_one_bad_look_is_no_failure() -> None:
    land, journal = Land(), Journal(None)
    looks = iter([False] * 4 + [True])

    def once() -> None:
        land.broken = {"i-1": Probe(None, None)} if next(looks, False) else {}

    land.probed = once
    assert land.cut(journal, names=["i-1"])


@pytest.mark.parametrize("verdict", [None, "NOT READY", "UNKNOWN"])
def test_who_is_not_ready_is_not_touched(verdict: str | None) -> None:
    land = Land()
    assert not land.cut(Journal(None), Terms(verdicts={"i-1": verdict} if verdict else {}))
    assert set(land.tokens.values()) == {"optional"}
    assert any("not touched" in line for line in land.said)
    assert "stopped: 4 more were not touched" in land.said


def test_an_error_of_the_api_goes_back_since_it_may_have_been_taken() -> None:
    land, journal = Land(), Journal(None)
    land.errors = ["ServiceUnavailable"]
    assert not land.cut(journal, names=["i-1"])
    assert journal.state("i-1") == ROLLED_BACK


def test_a_way_back_that_fails_is_said_loudly() -> None:
    land, journal = Land({"i-1": Probe(403, None)}, stuck=frozenset({"i-1"})), Journal(None)
    assert not land.cut(journal, names=["i-1"])
    assert journal.state("i-1") == FAILED
    assert any("by hand" in line for line in land.said)


@pytest.mark.parametrize("state", [SETTING, WATCHING])
@pytest.mark.parametrize("taken", [True, False])
def test_a_cutover_that_was_killed_goes_on_where_it_was(tmp_path: Path, state: str, taken: bool) -> None:
    path = tmp_path / "journal"
    Journal(path).note("i-1", state)
    land = Land()
    if taken:
        land.tokens["i-1"] = "required"
    assert land.cut(Journal(path), names=["i-1"])
    assert land.tokens["i-1"] == "required"
    assert land.now >= 300, "it is watched before it is done"
    assert Journal(path).state("i-1") == DONE


def test_what_is_required_already_and_what_is_not_there() -> None:
    land = Land()
    land.tokens["i-1"] = "required"
    assert land.cut(Journal(None), names=["i-1"])
    assert not land.cut(Journal(None), names=["i-none"])
    assert land.now == 0


def test_an_instance_that_does_not_serve_tokens_is_not_touched() -> None:
    land = Land()
    land.tokens["i-1"] = "optional"
    land.unready = True
    assert not land.cut(Journal(None), names=["i-1"])
    assert land.tokens["i-1"] == "optional"
