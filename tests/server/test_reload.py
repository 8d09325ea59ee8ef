"""Reload: whole or not at all, by SIGHUP and by command, while connections stay open."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import Proxy, running_proxy

USER_DATA = "/latest/user-data"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address) as one,
    ):
        yield one


def denied(*paths: str) -> dict[str, object]:
    return {"enforcement": "enforce", "rules": [{"name": "no", "allow": False, "paths": list(paths)}]}


def wait_for(proxy: Proxy, name: str, count: int = 1) -> dict[str, object]:
    end = time.monotonic() + 5
    while len(proxy.events(name)) < count:
        assert time.monotonic() < end, proxy.log_path.read_text()
        time.sleep(0.02)
    return proxy.events(name)[-1]


def test_new_rules_count_from_the_next_request_of_an_open_connection(proxy: Proxy) -> None:
    wire = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)

    def get() -> int:
        wire.request("GET", USER_DATA)
        response = wire.getresponse()
        response.read()
        return response.status

    assert get() == 200
    local_port = wire.sock.getsockname()[1]
    proxy.change(policy=denied("user-data"))
    done = proxy.reload()
    assert (done.returncode, done.stdout) == (0, "reloaded\n")
    assert get() == 403
    proxy.change(policy={})
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_for(proxy, "reloaded", 2)
    assert get() == 200
    assert wire.sock.getsockname()[1] == local_port
    wire.close()


def test_a_bad_file_is_refused_with_every_error_and_the_old_rules_stay(proxy: Proxy) -> None:
    proxy.change(policy=denied("user-data"))
    assert proxy.reload().returncode == 0
    proxy.config.write_text("mode: of\npolicy: {rules: [{}]}\n")
    os.kill(proxy.process.pid, signal.SIGHUP)
    event = wait_for(proxy, "reload-refused")
    assert len(event["errors"]) == 2  # type: ignore[arg-type]
    assert proxy.get(USER_DATA).status == 403


def test_the_command_prints_the_errors_of_a_bad_file(proxy: Proxy, tmp_path: Path) -> None:
    socket = Path(yaml.safe_load(proxy.config.read_text())["admin"]["socket"])
    proxy.config.write_text("mode: of\n")
    words = [sys.executable, "-m", "imds_proxy", "reload", "--socket", str(socket)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"{proxy.config}:1: mode: 'of' is not known" in done.stderr
    assert "the old configuration stays in force" in done.stderr


def test_keys_that_are_read_at_the_start_only_are_named(proxy: Proxy) -> None:
    proxy.change(tokens="sealed", listen=["127.0.0.1:1"])
    done = proxy.reload()
    # --listen stands on the daemon's command line, so the file's value changes nothing.
    assert done.stdout == "reloaded; needs a restart to take effect: tokens\n"


def test_a_file_that_is_removed_or_replaced_while_it_runs_is_judged_as_at_the_start(proxy: Proxy) -> None:
    proxy.config.unlink()
    os.kill(proxy.process.pid, signal.SIGHUP)
    assert "no such file" in str(wait_for(proxy, "reload-refused")["errors"])
    proxy.config.write_bytes(b"x: &a [*a]\n" + b"#" * 200_000_000)
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_for(proxy, "reload-refused", 2)
    assert proxy.get(USER_DATA).status == 200


def test_limits_that_did_not_change_carry_over(proxy: Proxy) -> None:
    config = yaml.safe_load(proxy.config.read_text())
    proxy.change(limits={**config["limits"], "hits": "1/h burst 3"})
    assert proxy.reload().returncode == 0
    assert [proxy.get("/latest/meta-data/mac").status for _ in range(4)] == [200, 200, 200, 429]
    assert proxy.reload().returncode == 0
    refused = proxy.get("/latest/meta-data/mac")
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) > 1000


def test_callers_are_answered_while_ten_thousand_rules_are_read(proxy: Proxy) -> None:
    rules = "".join(
        f"  - {{name: r{n}, caller: {{unit: a{n}.service, user: app{n % 50}}}, paths: [meta-data/a{n}/**]}}\n"
        for n in range(10_000)
    )
    with proxy.config.open("a") as file:
        file.write(f"policy:\n  rules:\n{rules}")
    began = time.monotonic()
    os.kill(proxy.process.pid, signal.SIGHUP)
    waits = []
    while not proxy.events("reloaded"):
        assert time.monotonic() < began + 60, proxy.log_path.read_text()
        asked = time.monotonic()
        assert proxy.get(USER_DATA).status == 200
        waits.append(time.monotonic() - asked)
    assert wait_for(proxy, "reloaded")["rules"] == 10_000
    assert max(waits) < (time.monotonic() - began) / 4, "it read or made the rules in the event loop"


def test_nobody_answers_where_no_daemon_runs(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "imds_proxy", "reload", "--socket", str(tmp_path / "none.sock")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "no daemon answers there" in done.stderr
