"""Distributions are found where the process's own Python would find them, and only there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from imds_proxy.clients.evidence import Found
from imds_proxy.clients.pythons import Interpreter, distributions, is_python, normal_name
from trees import distribution, rooted, write

NAMES = frozenset({"alibabacloud-credentials", "oss2"})
SITE = "/srv/app/venv/lib/python3.11/site-packages"
SYSTEM = "/usr/lib/python3/dist-packages"


def found(
    root: Path,
    command: str = "/srv/app/venv/bin/python",
    directory: str | None = "/",
    script: str | None = None,
    variables: Mapping[str, str] | None = None,
    mapped: tuple[str, ...] = (),
    **budget: float,
) -> list[tuple[str, str | None, str | None]]:
    python = Interpreter("/usr/bin/python3.11", command, directory, script, variables or {}, mapped)
    with rooted(root, **budget) as files:
        return [(one.name, one.version, one.where) for one in distributions(files, python, NAMES)]


def environment(root: Path, prefix: str = "/srv/app/venv", shared: bool = False) -> None:
    write(
        root,
        f"{prefix}/pyvenv.cfg",
        f"home = /usr/bin\ninclude-system-site-packages = {str(shared).lower()}\n",
    )


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_a_distribution_of_the_virtual_environment_is_found(tmp_path: Path, kind: str) -> None:
    environment(tmp_path)
    distribution(tmp_path, SITE, "alibabacloud-credentials", "0.3.2", kind)
    assert found(tmp_path) == [("alibabacloud-credentials", "0.3.2", "/srv/app/venv")]


def test_an_old_egg_info_is_a_file_and_an_egg_a_directory(tmp_path: Path) -> None:
    environment(tmp_path)
    write(tmp_path, f"{SITE}/oss2-2.19.1-py3.11.egg-info", "Name: oss2\nVersion: 2.19.1\n")
    egg = f"{SITE}/alibabacloud_credentials-0.3.0-py3.11.egg/EGG-INFO/PKG-INFO"
    write(tmp_path, egg, "Name: alibabacloud_credentials\nVersion: 0.3.0\n")
    assert sorted(found(tmp_path)) == [
        ("alibabacloud-credentials", "0.3.0", "/srv/app/venv"),
        ("oss2", "2.19.1", "/srv/app/venv"),
    ]


def test_a_closed_environment_hides_what_the_system_has(tmp_path: Path) -> None:
    environment(tmp_path)
    distribution(tmp_path, SYSTEM, "oss2", "2.14.0")
    assert found(tmp_path) == []


@pytest.mark.parametrize("case", ["shared environment", "no environment"])
def test_an_open_one_does_not(tmp_path: Path, case: str) -> None:
    environment(tmp_path, shared=True)
    (tmp_path / "usr/lib").mkdir(parents=True)
    distribution(tmp_path, SYSTEM, "oss2", "2.14.0")
    command = "/srv/app/venv/bin/python" if case.startswith("shared") else "python3"
    assert found(tmp_path, command) == [("oss2", "2.14.0", SYSTEM)]


def test_the_environment_wins_over_the_system(tmp_path: Path) -> None:
    environment(tmp_path, shared=True)
    distribution(tmp_path, SITE, "oss2", "2.19.1")
    distribution(tmp_path, SYSTEM, "oss2", "2.14.0")
    assert [version for _, version, _ in found(tmp_path)] == ["2.19.1"]


def test_an_activated_environment_is_told_by_its_variable(tmp_path: Path) -> None:
    environment(tmp_path)
    distribution(tmp_path, SITE, "oss2", "2.19.1")
    assert found(tmp_path, "python") == []
    assert len(found(tmp_path, "python", variables={"VIRTUAL_ENV": "/srv/app/venv"})) == 1


def test_a_command_may_be_relative_to_the_working_directory(tmp_path: Path) -> None:
    environment(tmp_path)
    distribution(tmp_path, SITE, "oss2", "2.19.1")
    assert len(found(tmp_path, "venv/bin/python", directory="/srv/app")) == 1


@pytest.mark.parametrize("how", ["script", "PYTHONPATH", "mapped", "HOME", "pth"])
def test_other_parts_of_sys_path_count_too(tmp_path: Path, how: str) -> None:
    (tmp_path / "usr/lib/python3.11/site-packages").mkdir(parents=True)
    home = "/home/app/.local/lib/python3.11/site-packages"
    place = {"HOME": home, "mapped": "/opt/x/lib/python3.11/site-packages"}.get(how, "/opt/vendored")
    distribution(tmp_path, place, "oss2", "2.19.1")
    if how == "pth":
        write(tmp_path, "/usr/lib/python3.11/site-packages/my.pth", "# note\nimport os\n/opt/vendored\n")
    done = found(
        tmp_path,
        "python3",
        script="/opt/vendored/main.py" if how == "script" else None,
        variables={"PYTHONPATH": "/opt/vendored"} if how == "PYTHONPATH" else {"HOME": "/home/app"},
        mapped=("/opt/x/lib/python3.11/site-packages/yaml/_yaml.so",) if how == "mapped" else (),
    )
    assert [(name, version) for name, version, _ in done] == [("oss2", "2.19.1")]


def test_metadata_of_another_name_is_not_believed(tmp_path: Path) -> None:
    environment(tmp_path)
    write(tmp_path, f"{SITE}/oss2-1.0.dist-info/METADATA", "Name: something-else\nVersion: 9\n")
    assert found(tmp_path) == []


@pytest.mark.parametrize("version", ["1.0\x1b[31m", "x" * 90, "latest"])
def test_a_version_that_is_none_is_not_told(tmp_path: Path, version: str) -> None:
    environment(tmp_path)
    write(tmp_path, f"{SITE}/oss2-1.0.dist-info/METADATA", f"Name: oss2\nVersion: {version}\n")
    assert found(tmp_path)[0][1] is None


def test_without_metadata_the_directory_s_name_tells(tmp_path: Path) -> None:
    environment(tmp_path)
    (tmp_path / SITE.lstrip("/") / "oss2-2.19.1.dist-info").mkdir(parents=True)
    assert found(tmp_path) == [("oss2", "2.19.1", "/srv/app/venv")]


def test_huge_metadata_is_read_at_its_beginning(tmp_path: Path) -> None:
    environment(tmp_path)
    text = "Name: oss2\nVersion: 2.19.1\n\n" + "x" * (8 << 20)
    write(tmp_path, f"{SITE}/oss2-2.19.1.dist-info/METADATA", text)
    assert found(tmp_path, size=1 << 20) == [("oss2", "2.19.1", "/srv/app/venv")]


def test_metadata_that_is_a_fifo_or_leads_out_is_passed_over(tmp_path: Path) -> None:
    environment(tmp_path)
    for name, make in (
        ("oss2", os.mkfifo),
        ("alibabacloud_credentials", lambda path: path.symlink_to("/etc/passwd")),
    ):
        directory = tmp_path / SITE.lstrip("/") / f"{name}-1.0.dist-info"
        directory.mkdir(parents=True)
        make(directory / "METADATA")
    assert [version for _, version, _ in found(tmp_path)] == ["1.0", "1.0"]


def test_paths_that_a_process_chose_are_shown_safely(tmp_path: Path) -> None:
    place = "/opt/\x1b[2Jx"
    distribution(tmp_path, place, "oss2", "2.19.1")
    (one,) = found(tmp_path, "python3", directory=place)
    assert one[2] == "/opt/\\x1b[2Jx"


def test_names_are_compared_in_their_normal_form() -> None:
    assert normal_name("Alibabacloud_Credentials") == "alibabacloud-credentials"


@pytest.mark.parametrize(
    ("path", "python"),
    [
        ("/usr/bin/python3.11", True),
        ("/usr/bin/python", True),
        ("/opt/pypy3.10", True),
        ("/bin/bash", False),
        (None, False),
    ],
)
def test_an_interpreter_is_told_by_its_name(path: str | None, python: bool) -> None:
    assert is_python(path) is python


def test_a_found_one_says_its_ecosystem(tmp_path: Path) -> None:
    environment(tmp_path)
    distribution(tmp_path, SITE, "oss2", "2.19.1")
    python = Interpreter("/usr/bin/python3", "/srv/app/venv/bin/python", "/", None, {})
    with rooted(tmp_path) as files:
        assert list(distributions(files, python, NAMES)) == [Found("pypi", "oss2", "2.19.1", "/srv/app/venv")]
