"""`imds-proxy check`: every error in one go, and warnings of what is allowed but unwise."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from imds_proxy.advice import check as module
from imds_proxy.advice.check import run_check, warnings_of, warnings_of_redirect
from imds_proxy.config import parse
from imds_proxy.server.build import policy_of


def check(path: Path | None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return run_check(path, out, err), out.getvalue(), err.getvalue()


def test_check_says_ok_of_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mode: enforce\n")
    file.chmod(0o644)
    assert check(file) == (0, f"{file}: configuration ok\n", "")


def test_check_prints_each_error_on_a_line_and_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mode: x\ntokens: y\n")
    file.chmod(0o644)
    code, out, err = check(file)
    assert (code, out) == (78, "")
    assert [line.split(": ")[0] for line in err.splitlines()] == [f"{file}:1", f"{file}:2"]


def test_check_says_that_a_file_is_missing(tmp_path: Path) -> None:
    assert check(tmp_path / "none") == (78, "", f"{tmp_path}/none: no such file\n")


def test_check_without_a_file_reads_the_default_one_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    monkeypatch.setattr(module, "DEFAULT_PATH", file)
    assert check(None) == (0, f"no {file}: the defaults are in force\n", "")
    file.write_text("modus: upgrade\n")
    file.chmod(0o644)
    assert check(None)[0] == 78


def test_rules_for_pods_can_match_where_the_api_server_is_asked() -> None:
    rules = "  - {name: a, caller: {pod: {namespace: web}, container: {name: app}}}\n"
    assert "nothing tells" in warned(rules)
    config = parse(f"pods: {{names: api, node: n1, api: kube}}\npolicy:\n  rules:\n{rules}", "f")
    assert not list(warnings_of(policy_of(config), config.pods.names))


def warned(rules: str, settings: str = "") -> str:
    """The warnings of a policy with these rules (YAML lines of the list, two spaces deep)."""
    config = parse(f"policy:\n{settings}  rules:\n{rules}", "f")
    return "\n".join(warnings_of(policy_of(config), config.pods.names))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            "  - {name: a, caller: {user: x}}\n"
            "  - {name: b, caller: {user: x, unit: u.service}, paths: user-data}\n",
            "rule 'b' never decides: the earlier rule 'a' means all that it means",
        ),
        ("  - {name: a, caller: {exe: /usr/bin/python3.11, user: x}}\n", "bare interpreter"),
        ("  - {name: a, caller: {exe: /usr/bin/java, user: x}, paths: [user-data]}\n", "bare interpreter"),
        ("  - {name: a, caller: {exe: /bin/cat}, paths: user-data}\n", "sensitive item to a program"),
        ("  - {name: a, paths: meta-data/**}\n", "sensitive item to every caller"),
        (
            "  - {name: a, caller: {pod: {namespace: web}}}\n",
            "pods.names is none, so nothing tells pod_namespace",
        ),
        ("  - {name: a, caller: {unit: a.service, container: {id: '*'}}}\n", "never in both"),
        ("  - {name: a, caller: {exe: /nonexistent/x, user: x}}\n", "there is no /nonexistent/x"),
    ],
)
def test_what_is_allowed_but_unwise_gets_a_warning(rules: str, said: str) -> None:
    assert said in warned(rules)


@pytest.mark.parametrize(
    "rule",
    [
        "{name: a, caller: {exe: /bin/cat, user: root}, paths: user-data}",
        "{name: a, caller: {user: x}, allow: false}",
        "{name: a, caller: {exe: /bin/cat}, paths: meta-data/instance-id}",
    ],
)
def test_a_sound_rule_gets_none(rule: str) -> None:
    assert warned(f"  - {rule}\n") == ""


def test_an_executable_that_its_user_could_replace_gets_a_warning(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("")
    program.chmod(0o755)
    rule = f"  - {{name: a, caller: {{exe: {program}, user: root}}}}\n"
    tmp_path.chmod(0o777)
    assert "is writable by others" in warned(rule)
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(program, 4321, 4321)
        owned = f"  - {{name: a, caller: {{exe: {program}, uid: 4321}}}}\n"
        assert "belongs to the user that it names" in warned(owned)


def test_warnings_are_printed_and_the_file_is_still_ok(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("policy: {rules: [{name: a, paths: user-data}]}\n")
    file.chmod(0o644)
    code, out, err = check(file)
    assert (code, out) == (0, f"{file}: configuration ok\n")
    assert err.startswith(f"{file}: warning: rule 'a' gives a sensitive item to every caller")


@pytest.mark.parametrize(
    ("section", "warns"),
    [
        ("{on_failure: closed, address: 169.254.1.1:8080}", True),
        ("{on_failure: closed}", False),
        ("{on_failure: open, address: 169.254.1.1:8080}", False),
        # A pod's own: nobody else is in it.
        ("{on_failure: closed, address: 169.254.1.1:8080, exempt_uid: 64646}", False),
    ],
)
def test_a_listener_that_any_user_could_take_from_a_dead_daemon_gets_a_warning(
    section: str, warns: bool
) -> None:
    said = list(warnings_of_redirect(parse(f"intercept: {section}", "c.yaml").intercept))
    assert bool(said) == warns
    assert all("any user can listen there" in one for one in said)
