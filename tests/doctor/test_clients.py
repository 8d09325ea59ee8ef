"""Running programs whose environment sends a known client's calls past the daemon are found all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imds_proxy.doctor.clients import running_clients
from imds_proxy.doctor.finding import Finding
from trees import distribution, write

PROC = Path("/proc")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    write(tmp_path, "/venv/pyvenv.cfg", f"home = {Path(sys.executable).resolve().parent}\n")
    distribution(tmp_path, f"/venv/lib/{version}/site-packages", "alibabacloud-credentials", "1.0.12")
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python").symlink_to(Path(sys.executable).resolve())
    return tmp_path / "venv"


@contextmanager
def running(environment: Path, **variables: str) -> Iterator[int]:
    words = (f"{environment}/bin/python", "-c", "print('here', flush=True); import sys; sys.stdin.read()")
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def findings(pid: int) -> list[Finding]:
    return [one for one in running_clients(PROC, 60) if one.sentence.startswith(f"process {pid} ")]


def test_an_sdk_behind_an_http_proxy_is_found_without_the_proxy_s_address(environment: Path) -> None:
    proxy = "http://user:hunter2@proxy:3128"
    with running(environment, HTTP_PROXY=proxy, NO_PROXY="100.100.100.200") as pid:
        (one,) = findings(pid)
    assert one.state == "warn"
    assert f"alibabacloud-credentials 1.0.12 in {environment}: HTTP_PROXY is set" in one.sentence
    assert "hunter2" not in one.sentence


def test_a_misspelt_switch_is_found(environment: Path) -> None:
    with running(environment, ALIBABA_CLOUD_IMDSV1_DISABLE="true") as pid:
        (one,) = findings(pid)
    assert "ALIBABA_CLOUD_IMDSV1_DISABLED=true is meant" in one.sentence


@pytest.mark.parametrize("variables", [{}, {"ALIBABA_CLOUD_IMDSV1_DISABLED": "true"}])
def test_one_with_nothing_amiss_is_not(environment: Path, variables: dict[str, str]) -> None:
    with running(environment, **variables) as pid:
        assert findings(pid) == []


def test_a_program_without_a_known_client_is_not() -> None:
    process = subprocess.Popen(["/usr/bin/sleep", "60"], env={"HTTP_PROXY": "http://p"})
    try:
        assert findings(process.pid) == []
    finally:
        process.kill()
        process.wait()


def test_out_of_time_it_says_that_there_is_more() -> None:
    (one,) = running_clients(PROC, -1)
    assert one.state == "unknown"


def test_a_machine_without_any_is_well(tmp_path: Path) -> None:
    (one,) = running_clients(tmp_path)
    assert (one.slug, one.state) == ("clients", "ok")
