"""The Debian package on a clean root file system: what install, upgrade, remove and purge leave."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from built import ARCHITECTURES, Packages
from rootfs import Root

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONFIG = "etc/imds-proxy/config.yaml"
MINE = "mode: enforce\n"


def of_dpkg(path: str) -> bool:
    """dpkg's own records, and the copies that a change of users leaves."""
    own = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/tmp/", "/proc/", "/run/")
    records = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"}
    return path.startswith(own) or path in records


def install(root: Root, deb: Path, *options: str) -> str:
    shutil.copy(deb, root.path / "tmp" / deb.name)
    return root.run("dpkg", *options, "--install", f"/tmp/{deb.name}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lintian_has_no_errors_and_no_warnings(packages: Packages, architecture: str) -> None:
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", str(packages.deb(architecture))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


def test_installed_it_runs_on_the_distributions_python_with_all_that_it_needs(
    packages: Packages, root: Root
) -> None:
    install(root, packages.deb())
    assert root.run("imds-proxy", "--version").startswith("imds-proxy ")
    assert "configuration ok" in root.run("imds-proxy", "check")
    code = "import sys, uvloop, h11, cachetools, yaml; print(yaml.CSafeLoader, sys.path)"
    said = root.run("/usr/lib/imds-proxy/bin/python3.11", "-I", "-c", code)
    assert "CSafeLoader" in said
    assert "dist-packages" not in said, "a library of the distribution can be imported"


def test_the_daemon_answers_from_the_package(packages: Packages, root: Root) -> None:
    install(root, packages.deb())
    script = """
        ip link set lo up
        imds-proxy emulate --listen 127.0.0.1:8200 --http-tokens required >/dev/null 2>&1 &
        imds-proxy run --listen 127.0.0.1:8100 --upstream 127.0.0.1:8200 >/dev/null 2>/tmp/log &
        curl -s --retry 40 --retry-connrefused --retry-delay 1 -H 'Host: 100.100.100.200' \
            http://127.0.0.1:8100/latest/meta-data/instance-id
    """
    assert root.run("sh", "-c", script).startswith("i-")
    assert "uvloop" not in (root.path / "tmp/log").read_text(), "it says that it had to do without"


def test_installing_makes_the_user_and_starts_and_enables_nothing(packages: Packages, root: Root) -> None:
    install(root, packages.deb())
    name, _, uid, _, _, home, shell = root.run("getent", "passwd", "imds-proxy").strip().split(":")
    assert (name, home, shell) == ("imds-proxy", "/var/lib/imds-proxy", "/usr/sbin/nologin")
    assert 0 < int(uid) < 1000
    assert root.attempt("systemctl", "is-enabled", "imds-proxy.service").stdout == "disabled\n"
    assert not (root.path / "run/imds-proxy").exists()


def test_without_systemd_the_user_is_made_too(packages: Packages, root: Root) -> None:
    (root.path / "usr/bin/systemd-sysusers").rename(root.path / "usr/bin/away")
    install(root, packages.deb())
    assert ":/var/lib/imds-proxy:/usr/sbin/nologin" in root.run("getent", "passwd", "imds-proxy")


def test_the_manual_and_the_completions_are_those_of_the_command_line(packages: Packages, root: Root) -> None:
    install(root, packages.deb())
    share = root.path / "usr/share"
    manual = ["man", "-l", str(share / "man/man8/imds-proxy.8.gz")]
    page = subprocess.run(manual, capture_output=True, text=True, check=True).stdout
    assert "imds-proxy - upgrade" in page
    files = ("bash-completion/completions/imds-proxy", "zsh/vendor-completions/_imds-proxy")
    for shell in (*files, "fish/vendor_completions.d/imds-proxy.fish"):
        for word in ("doctor", "--upstream", "enforce"):
            assert word in (share / shell).read_text()
            assert word in page
    completing = (
        ". /usr/share/bash-completion/completions/imds-proxy; COMP_WORDS=(imds-proxy do); COMP_CWORD=1;"
        "_shtab_imds_proxy imds-proxy do; echo ${COMPREPLY[@]}"
    )
    assert root.run("bash", "-c", completing) == "doctor\n"


def test_an_upgrade_keeps_a_changed_configuration_and_the_state(
    packages: Packages, root: Root, next_deb: Path
) -> None:
    install(root, packages.deb())
    (root.path / CONFIG).write_text(MINE)
    state = root.path / "var/lib/imds-proxy/tokens"
    state.parent.mkdir()
    state.write_text("kept")
    user = root.run("getent", "passwd", "imds-proxy")
    install(root, next_deb, "--force-confdef", "--force-confold")
    assert (root.path / CONFIG).read_text() == MINE
    assert "next release" in (root.path / f"{CONFIG}.dpkg-dist").read_text()
    assert state.read_text() == "kept"
    assert root.run("getent", "passwd", "imds-proxy") == user
    package = root.path / "usr/lib/imds-proxy/site-packages/imds_proxy"
    left = [*package.glob("control.*"), *package.glob("__pycache__/control.*")]
    assert not left, "something of the old version is still there to be imported"


def test_an_upgrade_of_an_unchanged_configuration_brings_the_new_one_without_asking(
    packages: Packages, root: Root, next_deb: Path
) -> None:
    install(root, packages.deb())
    install(root, next_deb)
    assert "next release" in (root.path / CONFIG).read_text()


def test_removing_keeps_what_is_the_operators_and_nothing_else(packages: Packages, root: Root) -> None:
    before = root.snapshot(of_dpkg)
    install(root, packages.deb())
    root.run("systemctl", "enable", "imds-proxy.service")
    (root.path / CONFIG).write_text(MINE)
    root.run("dpkg", "--remove", "imds-proxy")
    after = root.snapshot(of_dpkg)
    users = {"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"}
    assert {path for path in after if after[path] != before.get(path)} == users | {
        "/etc/imds-proxy",
        f"/{CONFIG}",
    }
    assert before.keys() <= after.keys()
    install(root, packages.deb())
    assert (root.path / CONFIG).read_text() == MINE


def test_purging_leaves_the_file_system_as_it_was(packages: Packages, root: Root, next_deb: Path) -> None:
    before = root.snapshot(of_dpkg)
    install(root, packages.deb())
    (root.path / CONFIG).write_text(MINE)
    install(root, next_deb, "--force-confdef", "--force-confold")
    root.run("systemctl", "enable", "imds-proxy.service")
    root.run("sh", "-c", "mkdir -p /var/lib/imds-proxy/deep && echo x > /var/lib/imds-proxy/deep/file")
    root.run("imds-proxy", "--version")
    root.run("dpkg", "--purge", "imds-proxy")
    assert root.snapshot(of_dpkg) == before


def test_the_launcher_takes_the_newest_python_where_the_default_one_is_too_old(
    packages: Packages, root: Root
) -> None:
    install(root, packages.deb())
    default = root.path / "usr/bin/python3"
    default.unlink()
    default.symlink_to("python3.6")
    (root.path / "usr/bin/python3.6").write_text("#!/bin/sh\nexit 9\n")
    (root.path / "usr/bin/python3.6").chmod(0o755)
    assert root.run("imds-proxy", "--version").startswith("imds-proxy ")
    (root.path / "usr/bin/python3.11").unlink()
    done = root.attempt("imds-proxy", "--version")
    assert done.returncode == 1
    assert "needs Python 3.10" in done.stderr
