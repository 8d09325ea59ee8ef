"""A look at real processes, whole: interpreters, executables, archives, and hostile ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from goprogram import GoModule, build_program
from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.evidence import Evidence
from imds_proxy.clients.look import look
from imds_proxy.clients.rooted import Budget
from imds_proxy.clients.sight import take_sight
from trees import distribution, jar, package, pom, write

STAYING = """package main

import (
\t"fmt"
\t"io"
\t"os"
)

func main() {
\tfmt.Println("here")
\tio.Copy(io.Discard, os.Stdin)
}
"""
STAY = "print('here', flush=True); import sys; sys.stdin.read()"


@contextmanager
def running(*words: str, cwd: Path | None = None, **variables: str) -> Iterator[int]:
    environment = {"PATH": os.environ["PATH"], **variables}
    process = subprocess.Popen(words, cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def evidence(pid: int, script: str | None = None, budget: Budget | None = None) -> Evidence:
    sight = take_sight(pid, None)
    assert sight is not None
    with sight:
        return look(sight, catalogue(), script, None, budget)


def named(seen: Evidence) -> dict[str, str | None]:
    return {one.name: one.version for one in seen.found}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment's bones, with an old SDK's metadata."""
    site = f"/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    write(tmp_path, "/venv/pyvenv.cfg", f"home = {Path(sys.executable).resolve().parent}\n")
    distribution(tmp_path, site, "alibabacloud-credentials", "0.3.2")
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python").symlink_to(Path(sys.executable).resolve())
    return tmp_path / "venv"


def test_a_python_program_of_an_environment(environment: Path) -> None:
    with running(f"{environment}/bin/python", "-c", STAY, HTTP_PROXY="http://u:secret@p") as pid:
        seen = evidence(pid)
    assert named(seen) == {"alibabacloud-credentials": "0.3.2"}
    assert seen.found[0].where == str(environment)
    assert [one.name for one in seen.settings] == ["HTTP_PROXY"]
    assert seen.missing is None


def test_a_node_program(tmp_path: Path) -> None:
    package(tmp_path, "/app", "@alicloud/credentials", "2.2.6")
    script = write(tmp_path, "/app/main.js", "console.log('here'); process.stdin.resume();")
    with running("node", str(script), cwd=Path("/")) as pid:
        assert named(evidence(pid, str(script))) == {"@alicloud/credentials": "2.2.6"}


def test_a_go_program(tmp_path: Path) -> None:
    library = GoModule(
        "github.com/denverdino/aliyungo",
        "v0.0.0-20230411124812-ab98a9173ace",
        {"metadata/a.go": "package metadata\n"},
    )
    source = STAYING.replace('"os"', '"os"\n\n\t_ "github.com/denverdino/aliyungo/metadata"')
    path = build_program(tmp_path, "example.com/app", source, [library])
    with running(str(path)) as pid:
        seen = evidence(pid)
    assert named(seen) == {library.path: library.version}
    assert seen.found[0].where == str(path)


def test_a_java_program(tmp_path: Path) -> None:
    path = jar(tmp_path / "credentials-java-0.3.2.jar", pom("com.aliyun", "credentials-java", "0.3.2"))
    source = write(
        tmp_path,
        "/Main.java",
        "public class Main { public static void main(String[] a) throws Exception { "
        'ClassLoader.getSystemResource("none"); System.out.println("here"); System.in.read(); } }',
    )
    subprocess.run(["javac", "-d", str(tmp_path), str(source)], check=True, timeout=120)
    with running("java", "-cp", f"{tmp_path}:{path}", "Main") as pid:
        seen = evidence(pid)
    assert named(seen) == {"com.aliyun:credentials-java": "0.3.2"}
    assert seen.found[0].where == str(path)


def test_a_program_that_has_ended_is_looked_at_as_far_as_it_is_held(environment: Path) -> None:
    with running(f"{environment}/bin/python", "-c", STAY) as pid:
        sight = take_sight(pid, None)
    assert sight is not None
    with sight:
        seen = look(sight, catalogue(), None, None)
    assert seen.missing == "the process ended before it could be looked at"
    assert named(seen) == {}


def test_a_kernel_that_refuses_openat2_is_said_to_and_nothing_is_found(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr("imds_proxy.clients.rooted.open_in_root", refused)
    with running(f"{environment}/bin/python", "-c", STAY, HTTP_PROXY="http://p") as pid:
        seen = evidence(pid)
    assert seen.found == ()
    assert "openat2 is missing (Linux 5.6) or refused" in str(seen.missing)
    assert [one.name for one in seen.settings] == ["HTTP_PROXY"]


def test_a_look_that_takes_too_long_says_so(environment: Path) -> None:
    with running(f"{environment}/bin/python", "-c", STAY) as pid:
        seen = evidence(pid, budget=Budget(seconds=0))
    assert seen.missing == "the look took too long or had too much to read"


@pytest.mark.root
def test_nothing_of_a_container_s_root_is_run_or_followed_out(tmp_path: Path) -> None:
    """A root whose every file is a trap: a look takes a bounded time and finds nothing outside."""
    root = tmp_path / "root"
    ran, outside = tmp_path / "ran", tmp_path / "outside"
    for name in ("cloud-init", "rpm", "dpkg"):
        write(root, f"/usr/bin/{name}", f"#!/bin/sh\ntouch {ran}\n").chmod(0o755)
    # A "Python" that needs nothing but itself.
    (root / "usr/bin/python3").write_bytes(
        build_program(tmp_path / "go", "example.com/stay", STAYING).read_bytes()
    )
    (root / "usr/bin/python3").chmod(0o755)
    distribution(outside, "/site-packages", "oss2", "9.9")
    library = root / "usr/lib/python3/dist-packages"
    library.parent.mkdir(parents=True)
    library.symlink_to(f"../../../../../../../../../..{outside}/site-packages")
    (root / "usr/local/lib/python3.11").mkdir(parents=True)
    (root / "usr/local/lib/python3.11/site-packages").symlink_to(f"{outside}/site-packages")
    os.mkfifo(root / "usr/pyvenv.cfg")
    (root / "var/lib/dpkg").mkdir(parents=True)
    os.mkfifo(root / "var/lib/dpkg/status")
    distribution(root, "/srv", "aliyun-python-sdk-core", "2.16.1")
    words = ("chroot", str(root), "/usr/bin/python3")
    with running(*words, PYTHONPATH=f"/usr/../../../..{outside}/site-packages:/srv") as pid:
        sight = take_sight(pid, None)
        assert sight is not None
        began = time.monotonic()
        with sight:
            assert sight.executable_path == "/usr/bin/python3"
            seen = look(sight, catalogue(), "/usr/bin/cloud-init", None)
        assert time.monotonic() - began < 20
    assert named(seen) == {"cloud-init": None, "aliyun-python-sdk-core": "2.16.1"}
    assert not ran.exists()
