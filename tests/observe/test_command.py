"""A host on which nothing is redirected: what goes by is named, told apart, and reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import SERVICE, Lab
from observed import observable_lab, observing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a namespace")]

ROLE = f"http://{SERVICE}/latest/meta-data/ram/security-credentials/demo-role"
OLD = f"curl -sf {ROLE} >/dev/null\n"
NEW = f"""
token=$(curl -sf -X PUT -H "X-aliyun-ecs-metadata-token-ttl-seconds: 60" http://{SERVICE}/latest/api/token)
curl -sf -H "X-aliyun-ecs-metadata-token: $token" {ROLE} >/dev/null
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with observable_lab() as lab:
        yield lab


def report(directory: Path) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "imds_proxy", "report", "--json", str(directory / "ledger.db")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    callers: list[dict[str, Any]] = json.loads(done.stdout)["callers"]
    return callers


def test_callers_are_named_told_apart_and_reported(lab: Lab, tmp_path: Path) -> None:
    scripts = {}
    for name, text in (("old.sh", OLD), ("new.sh", NEW)):
        path = tmp_path / name
        path.write_text("#!/bin/bash\n" + text)
        scripts[name] = str(path)
    with observing(lab, tmp_path) as events:
        for _ in range(5):
            assert lab.run("bash", scripts["old.sh"]).returncode == 0
        for _ in range(3):
            assert lab.run("bash", scripts["new.sh"]).returncode == 0
    totals = {"legacy": 0, "hardened": 0}
    for caller in report(tmp_path):
        assert caller["exe"].endswith("/curl")
        for kind in totals:
            totals[kind] += caller["sessions"][kind]
    assert totals == {"legacy": 5, "hardened": 3}
    end = events[-1]
    assert (end["event"], end["requests"], end["unread"], end["packets_lost"]) == ("observed", 11, 0, 0)
    legacy = next(one for one in events if one["event"] == "legacy-caller")
    assert any("old.sh" in parent or "bash" in parent for parent in legacy["parents"])
    secrets = (tmp_path / "log").read_text()
    assert "STS." not in secrets
    assert "AccessKey" not in secrets


def test_a_fallback_has_the_reason_of_its_token_call(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "falling.py"
    program.write_text(
        "import http.client\n"
        f"wire = http.client.HTTPConnection('{SERVICE}')\n"
        "wire.request('PUT', '/latest/api/token', headers={'X-aliyun-ecs-metadata-token-ttl-seconds': '0'})\n"
        "assert wire.getresponse().read() is not None\n"
        "wire.request('GET', '/latest/meta-data/mac')\n"
        "assert wire.getresponse().status == 200\n"
    )
    with observing(lab, tmp_path) as events:
        assert lab.run(sys.executable, str(program)).returncode == 0
    (caller,) = report(tmp_path)
    assert caller["script"] == str(program)
    assert caller["sessions"]["fallback"] == 1
    assert next(one for one in events if one["event"] == "fallback-caller")["cause"] == "token:status-400"


def test_it_ends_by_itself_after_its_time(lab: Lab, tmp_path: Path) -> None:
    words = lab.words(
        sys.executable, "-m", "imds_proxy", "observe", "--for", "1s", "--ledger", str(tmp_path / "l")
    )
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"observed"' in done.stderr


def test_without_the_right_to_it_says_what_is_needed(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "imds_proxy", "observe", "--ledger", str(tmp_path / "l")]
    drop = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    done = subprocess.run([*drop, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "CAP_NET_RAW" in done.stderr
