"""What the real service answers: through a daemon, directly, and by a command on another machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from imds_proxy.cutover.probing import probe_by_command, probe_directly, probe_here
from imds_proxy.cutover.steps import Instance, Probe
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.protocol.profile import PROFILES
from proxy import running_proxy

PROFILE = PROFILES["alibaba"]
INSTANCE = Instance("i-a", None, None, None, None, None, private_ip="192.168.0.9")
NOWHERE = ("127.0.0.1", 1)


@pytest.mark.parametrize(("tokens", "probe"), [("optional", Probe(200, 200)), ("required", Probe(403, 200))])
def test_the_service_is_asked_in_both_ways_with_and_without_a_daemon(tokens: str, probe: Probe) -> None:
    with Emulator(settings=Settings(http_tokens=tokens)) as service:
        assert probe_directly(*service.address, PROFILE) == probe
        with running_proxy(service.address) as proxy:
            admin = proxy.config.parent / "admin.sock"
            assert probe_here(admin, *NOWHERE, PROFILE) == probe, "the daemon asked, not we"
        assert probe_here(admin, *service.address, PROFILE) == probe, "and we where it is not there"


def test_a_service_that_is_not_there_is_no_answer() -> None:
    assert probe_directly(*NOWHERE, PROFILE) == Probe(None, None)


def test_callers_failures_are_counted_by_the_daemon() -> None:
    with Emulator() as service, running_proxy(service.address) as proxy:
        service.stop()
        assert proxy.get("/latest/meta-data/mac").status >= 500
        found = probe_here(proxy.config.parent / "admin.sock", *NOWHERE, PROFILE)
    assert (found.v1, found.v2, found.failed) == (None, None, 1)


def test_another_machine_is_asked_by_a_command_that_knows_which() -> None:
    code = "import os; print('{\"v1\": 403, \"v2\": 200}' if os.environ['INSTANCE_ID'] == 'i-a' else '')"
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    assert probe_by_command(words, INSTANCE) == Probe(403, 200)


@pytest.mark.parametrize(
    "words", ["exit 3", "echo nonsense", "echo '[1]'", 'echo \'{"v1": true, "v2": "200"}\'']
)
def test_a_command_that_says_nothing_useful_is_no_answer(words: str, tmp_path: Path) -> None:
    assert probe_by_command(words, INSTANCE) == Probe(None, None)
