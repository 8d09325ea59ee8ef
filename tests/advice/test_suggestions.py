"""From logs to YAML that loads, and allows everything that was seen."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from histories import alike, batch, opened
from imds_proxy.advice.explain import caller_of, explain
from imds_proxy.advice.suggestions import run
from imds_proxy.config import Config, parse
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import policy_of

DEFAULT = policy_of(Config())
TEXTS = st.one_of(st.none(), st.text(alphabet="ab/.:#'\"{}[],&*!|>%@- ü", min_size=1, max_size=12))
PATHS = st.sampled_from(
    ["/latest/user-data", "/latest/meta-data/mac", "/", "/2016-01-01/meta-data/a%20b", "/latest/x/12/y"]
)


def suggested(tmp_path: Path, *records: dict[str, Any], rest: str = "") -> str:
    log = tmp_path / "log"
    log.write_text("".join(json.dumps(record) + "\n" for record in records) + rest)
    out, err = io.StringIO(), io.StringIO()
    assert run([log], DEFAULT, out, err) == 0
    return out.getvalue()


def summary(**facts: Any) -> dict[str, Any]:
    return {"event": "caller-summary", "sessions": {"legacy": 2}, "items": ["/latest/meta-data/mac"], **facts}


def test_what_was_seen_becomes_a_commented_policy_that_loads(tmp_path: Path) -> None:
    text = suggested(
        tmp_path,
        summary(
            exe="/usr/bin/curl", user="app", uid=5, unit="a.service", items=["/latest/user-data", "/latest/"]
        ),
        summary(user="app", uid=5, container="c" * 64),
        {"event": "legacy-caller", "exe": "/usr/bin/wget", "uid": 6, "path": "/1.0/meta-data/mac"},
        rest="no json\n[]\n",
    )
    config = parse(text, "f")
    assert (config.policy.enforcement, config.policy.default) == ("enforce", "deny")
    rules = {rule.name: rule for rule in config.policy.rules}
    assert rules["curl of app in a.service"].paths == ("user-data",)
    assert rules["wget of 6"].caller.uid == ("6",)
    assert next(rule for rule in config.policy.rules if rule.caller.container.id).paths == ("meta-data/mac",)
    assert "# seen: legacy 2" in text


def test_nobody_seen_is_an_empty_list_of_rules(tmp_path: Path) -> None:
    text = suggested(tmp_path, summary(exe="/x"))
    assert "1 caller(s) of whom nothing is known have no rule" in text
    assert parse(text, "f").policy.rules == ()


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    err = io.StringIO()
    assert run([tmp_path / "none"], DEFAULT, io.StringIO(), err) == 1
    assert "No such file" in err.getvalue()


@given(exe=TEXTS, script=TEXTS, user=TEXTS, unit=TEXTS, paths=st.lists(PATHS, min_size=1))
def test_whatever_was_seen_of_a_named_caller_is_allowed(
    tmp_path_factory: Any,
    exe: str | None,
    script: str | None,
    user: str | None,
    unit: str | None,
    paths: list[str],
) -> None:
    exe = None if exe is None else "/usr/bin/x" + exe.replace("/", "").replace(".", "")
    facts = {"exe": exe, "script": script, "user": user, "unit": unit}
    facts = {name: text if text is None or text.isprintable() else None for name, text in facts.items()}
    text = suggested(tmp_path_factory.mktemp("s"), summary(**facts, uid=7, items=paths))
    yaml.safe_load(text)
    policy = policy_of(parse(text, "f"))
    for path in paths:
        found = explain(policy, caller_of({**facts, "uid": "7"}), path, Session.LEGACY)
        assert found.outcome == "allowed", text


def test_a_ledger_suggests_what_the_log_of_the_same_calls_does(tmp_path: Path) -> None:
    paths = ["/latest/meta-data/mac", "/latest/user-data"]
    facts = {"exe": "/usr/bin/curl", "user": "root", "uid": 0, "unit": "cron.service"}
    logged = suggested(tmp_path, {**summary(**facts), "items": paths})
    store = opened(tmp_path / "ledger.db")
    store.write([batch(0, *[(alike(path=path), 1) for path in paths])])
    store.close()
    out, err = io.StringIO(), io.StringIO()
    assert run([tmp_path / "ledger.db"], DEFAULT, out, err) == 0
    assert out.getvalue() == logged
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"SQLite format 3\0" + b"\xa5" * 5000)
    assert run([broken], DEFAULT, out, err) == 1
    assert "broken.db: " in err.getvalue()
