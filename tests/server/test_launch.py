from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from imds_proxy.callers import recent
from imds_proxy.config import Config, parse
from imds_proxy.emulator.service import Emulator
from imds_proxy.server import launch
from imds_proxy.server.launch import wanted
from imds_proxy.server.privileges import Capability
from manager import service_manager
from proxy import running_proxy

MAC = "/latest/meta-data/mac"
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_each_right_has_its_use() -> None:
    naming = {Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH}
    redirecting = {Capability.NET_ADMIN, Capability.NET_BIND_SERVICE}
    assert wanted(Config(attribution="procfs")) == naming | redirecting
    assert wanted(Config()) == naming | redirecting | {Capability.BPF, Capability.PERFMON}


@root
@pytest.mark.root
@pytest.mark.parametrize("attribution", ["procfs", "auto"])
def test_a_daemon_that_root_starts_is_root_no_more_and_still_names_callers(
    tmp_path: Path, attribution: str
) -> None:
    tmp_path.chmod(0o755)
    with (
        Emulator() as service,
        running_proxy(
            service.address, {"user": "64998", "attribution": attribution}, state=tmp_path / "state"
        ) as proxy,
    ):
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
        assert "\nUid:\t64998\t64998\t64998\t64998\n" in status
        assert proxy.get(MAC).status == 200  # asked by root's own process, whose names root alone may see
        proxy.put_token(60)
        assert proxy.stop() == 0
        named = [one for one in proxy.log() if one["event"] == "legacy-caller"]
        assert [one["exe"] for one in named] == [os.path.realpath(sys.executable)]
        assert "state-unusable" not in {one["event"] for one in proxy.log()}
    assert (tmp_path / "state" / "tokens.jsonl").stat().st_uid == 64998


@root
@pytest.mark.root
def test_without_the_reserved_user_root_stays_root_without_rights_and_says_so() -> None:
    with Emulator() as service, running_proxy(service.address, {"user": "auto"}) as proxy:
        said = [one["event"] for one in proxy.log()]
        if "runs-as-root" not in said:
            pytest.skip("this machine has a user imds-proxy")
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
        (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
        needed = sum(1 << one for one in wanted(Config()))
        assert int(effective, 16) & ~needed == 0
        assert "\nNoNewPrivs:\t1\n" in status


def started(tmp_path: Path, settings: dict[str, object]) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"state": str(tmp_path / "state"), **settings}))
    return subprocess.run(
        [sys.executable, "-m", "imds_proxy", "run", "-c", str(config), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=20,
    )


@root
@pytest.mark.root
def test_a_user_that_is_not_there_is_a_refused_configuration(tmp_path: Path) -> None:
    done = started(tmp_path, {"user": "nobody-has-this"})
    assert done.returncode == 78
    (line,) = (json.loads(one) for one in done.stderr.splitlines())
    assert line["event"] == "no-such-user"
    assert "nobody-has-this" in line["message"]


def test_ready_is_said_when_it_serves_and_the_status_says_how_the_service_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator() as service, service_manager(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        with running_proxy(service.address) as proxy:
            host, port = service.address
            heard = manager.heard()
            while not any(one.startswith("READY=1") for one in heard):
                heard += manager.heard()
            assert proxy.get(MAC).status == 200
            while not any(one.endswith(f"{host}:{port} answers") for one in heard):
                heard += manager.heard()
            proxy.stop()
        assert any(one.startswith("STOPPING=1") for one in manager.heard())


def test_the_configuration_that_the_example_shows_says_user_auto() -> None:
    assert parse("user: auto", "f").user == Config().user


def test_files_are_spared_for_all_processes_that_are_remembered() -> None:
    """Each by three: those known by their sockets, and those known by what the kernel noted of them."""
    remembered = recent._MAX_PROCESSES + recent._MAX_NOTED
    assert 3 * remembered + 256 <= launch._SPARE_FILES
