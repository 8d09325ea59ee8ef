"""The command: options in, findings or a file of facts out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.config import Config, override
from imds_proxy.doctor import add_arguments, examine, run

FREE = ["--upstream", "127.0.0.1:9"]


def doctor(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(words)))


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(f"listen: ['127.0.0.1:0']\nstate: {tmp_path}\n")
    file.chmod(0o644)
    return file


def test_the_checks_say_something_of_this_machine_and_of_each_subject_once(tmp_path: Path) -> None:
    findings = examine(override(Config(state=tmp_path), listen=["127.0.0.1:0"]), ask_upstream=False)
    slugs = [finding.slug for finding in findings]
    assert len(set(slugs)) == len(slugs)
    assert {"python", "kernel", "capabilities", "cgroups", "user-namespaces", "sock-diag", "route"} <= set(
        slugs
    )
    assert {"http-proxy", "cloud-init", "cloud-assistant", "open-connections", "listen", "state"} <= set(
        slugs
    )
    assert all(finding.remedy for finding in findings if finding.state == "bad")


def test_json_has_a_schema_and_the_exit_code_says_whether_something_is_bad(
    config_file: Path, service: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor("--json", "-c", str(config_file), "--upstream", str(service.address))
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    states = {one["slug"]: one["state"] for one in found["findings"]}
    assert states["upstream"] == "ok"
    assert code == (1 if "bad" in states.values() else 0)
    assert set(found["findings"][0]) == {"slug", "state", "sentence", "remedy"}


def test_a_service_that_does_not_answer_is_bad(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("-c", str(config_file), *FREE) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bad") and "127.0.0.1:9 does not answer" in line for line in lines)


def test_a_refused_configuration_is_bad_and_printed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evil\x1b[31m.yaml"
    file.write_text("modus: upgrade\n")
    file.chmod(0o644)
    assert doctor("-c", str(file)) == 1
    out = capsys.readouterr().out
    assert "did you mean 'mode'?" in out
    assert all(line.isprintable() for line in out.splitlines())


def test_a_wrong_upstream_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--upstream", "here") == 2
    assert "has no port" in capsys.readouterr().err


def test_the_facts_of_a_service_stand_in_a_private_file_without_any_secret(
    service: Any, secrets: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "facts.json"
    assert doctor("--service", "--upstream", str(service.address), "--output", str(output)) == 0
    assert f"{output}: " in capsys.readouterr().out
    text = output.read_text()
    assert output.stat().st_mode & 0o777 == 0o600
    assert [name for name, secret in secrets.items() if secret in text] == []
    assert "secretCookie" not in text
    assert json.loads(text)["http_tokens"] == "required"
    assert len(service.requests) <= 40


def test_no_file_is_written_where_no_service_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "facts.json"
    assert doctor("--service", *FREE, "--output", str(output)) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert not output.exists()


def test_a_link_in_the_place_of_the_file_is_not_followed(
    service: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "facts.json").symlink_to(tmp_path / "target")
    words = ["--service", "--upstream", str(service.address), "--output", str(tmp_path / "facts.json")]
    assert doctor(*words) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "target").exists()
