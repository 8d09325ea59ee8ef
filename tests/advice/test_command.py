"""`imds-proxy policy ...` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RULES = """
policy:
  enforcement: enforce
  rules:
    - {name: me, caller: {exe: %s, uid: %d}, paths: user-data}
    - {name: nobody else, paths: user-data, allow: false}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(RULES % (Path(sys.executable).resolve(), os.geteuid()))
    path.chmod(0o644)
    return path


def policy(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imds_proxy", "policy", *words, "-c", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def explained(config: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = policy(config, "explain", "--json", "--path", "user-data", *words)
    return done.returncode, json.loads(done.stdout)


def test_a_living_process_is_explained_by_its_facts(config: Path) -> None:
    code, found = explained(config, "--pid", str(os.getpid()))
    assert (code, found["rule"], found["outcome"]) == (0, "me", "allowed")
    assert found["steps"] == [{"rule": "me", "why": "decides: allows"}]


def test_another_program_of_the_same_user_is_refused_and_told_why(config: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        code, found = explained(config, "--pid", str(process.pid))
        process.kill()
    assert (code, found["rule"], found["outcome"]) == (1, "nobody else", "refused")
    assert found["steps"][0]["why"].startswith("no: exe is ")


def test_facts_may_be_given_in_place_of_a_process(config: Path) -> None:
    assert explained(config, "--exe", "/bin/x", "--user", "web")[1]["rule"] == "nobody else"
    done = policy(config, "explain", "--path", "user-data", "--pid", "1", "--exe", "/bin/x")
    assert (done.returncode, "not both" in done.stderr) == (2, True)


def test_a_process_that_is_not_there_is_said(config: Path) -> None:
    done = policy(config, "explain", "--path", "user-data", "--pid", "4194304")
    assert (done.returncode, done.stdout) == (1, "")
    assert "process 4194304: No such file or directory" in done.stderr


def test_expectations_and_suggestions_are_reached(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "expect.yaml"
    file.write_text("expect: [{caller: {user: web}, path: user-data, outcome: refused}]\n")
    assert policy(config, "test", str(file)).stdout.endswith("1 of 1 expectations are met\n")
    log = tmp_path / "log"
    log.write_text("")
    assert "rules: []" in policy(config, "suggest", str(log)).stdout


def test_a_refused_configuration_is_exit_78(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("mode: of\n")
    assert policy(bad, "explain", "--path", "x").returncode == 78
