from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imds_proxy.server.privileges import Account, Capability, account_of, hand_over, permitted

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# What /proc says of a process that has given up its rights, and what it then cannot do.
_DROP = """
import os, threading
from pathlib import Path
from imds_proxy.server.privileges import Account, Capability, drop
wanted = frozenset({wanted})
kept = drop({account}, wanted)
print(sorted(map(int, kept)))
def status():
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return {{line.split(":")[0]: line.split(":")[1].split() for line in lines}}
def say():
    found = status()
    for name in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"):
        print(name, *found[name])
say()
thread = threading.Thread(target=say)
thread.start()
thread.join()
try:
    os.setuid(0)
    print("root again", os.getuid())
except PermissionError:
    print("no way back")
{then}
"""


def dropping(account: str, wanted: str, *before: str, then: str = "") -> list[str]:
    program = _DROP.format(account=account, wanted=wanted, then=then)
    done = subprocess.run(
        [*before, sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@root
@pytest.mark.root
def test_root_becomes_another_user_with_just_what_it_needs_in_every_thread_and_for_good() -> None:
    lines = dropping("Account(64998, 64997)", "{Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH}")
    mask = f"{1 << 19 | 1 << 2:016x}"
    state = [
        "Uid 64998 64998 64998 64998",
        "Gid 64997 64997 64997 64997",
        "Groups",
        "CapInh 0000000000000000",
        f"CapPrm {mask}",
        f"CapEff {mask}",
        f"CapBnd {mask}",
        "CapAmb 0000000000000000",
        "NoNewPrivs 1",
    ]
    assert lines == ["[2, 19]", *state, *state, "no way back"]


@root
@pytest.mark.root
def test_a_program_that_it_would_run_has_no_capability_at_all() -> None:
    then = "import subprocess; subprocess.run(['grep', 'CapEff', '/proc/self/status'])"
    lines = dropping("Account(64998, 64998)", "{Capability.DAC_READ_SEARCH}", then=then)
    assert lines[-1].split() == ["CapEff:", "0000000000000000"]


@root
@pytest.mark.root
def test_root_that_stays_root_keeps_no_more_than_it_needs() -> None:
    lines = dropping("None", "{Capability.SYS_PTRACE}")
    assert lines[1] == "Uid 0 0 0 0"
    assert f"CapEff {1 << 19:016x}" in lines


@root
@pytest.mark.root
def test_what_it_does_not_have_it_does_not_keep_as_a_sidecar_does_not() -> None:
    """As in the pod: it starts with these four, and keeps the last two."""
    started = "-all,+setuid,+setgid,+sys_ptrace,+dac_read_search"
    lines = dropping(
        "Account(64998, 64998)",
        "set(Capability)",
        *("setpriv", f"--bounding-set={started}", "--"),
    )
    assert lines[0] == "[2, 19]"


@root
@pytest.mark.root
def test_an_ordinary_user_gives_up_what_systemd_gave_it_and_it_does_not_need() -> None:
    given = "-all,+net_bind_service,+sys_ptrace"
    lines = dropping(
        "None",
        "{Capability.SYS_PTRACE, Capability.BPF}",
        *("setpriv", "--reuid=64998", "--regid=64998", "--clear-groups"),
        *(f"--inh-caps={given}", f"--ambient-caps={given}", "--"),
    )
    assert lines[0] == "[19]"
    assert "CapAmb 0000000000000000" in lines


def test_the_account_is_a_name_a_number_or_the_reserved_user() -> None:
    assert account_of("root") == Account(0, 0)
    assert account_of("0") == Account(0, 0)
    assert account_of("64998") == Account(64998, 64998)
    with pytest.raises(ValueError, match="this machine has no user nobody-has-this"):
        account_of("nobody-has-this")


def test_in_a_user_namespace_of_one_root_cannot_leave_and_is_not_asked_to() -> None:
    program = (
        "from imds_proxy.server import privileges\n"
        "privileges.RESERVED = 'daemon'\n"
        "print(privileges.account_of('auto'))"
    )
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    if "unshare failed" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout == "None\n", done.stderr


def test_permitted_is_what_proc_says() -> None:
    line = next(
        one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("CapPrm:")
    )
    assert sum(1 << number for number in permitted()) == int(line.split()[1], 16)
    assert {int(one) for one in Capability} == {2, 10, 12, 19, 21, 38, 39}


@root
@pytest.mark.root
def test_roots_own_directory_and_its_files_are_handed_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    hand_over(state, Account(64998, 64998), 0o700)
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (64998, 0o700)
    os.chown(state, 0, 0)
    (state / "tokens.jsonl").write_text("")
    hand_over(state, Account(64998, 64998), 0o700)
    assert (state / "tokens.jsonl").stat().st_uid == 64998


@root
@pytest.mark.root
@pytest.mark.parametrize("trap", ["nested", "writable", "foreign", "link"])
def test_what_may_not_be_its_own_is_left_as_it_is(tmp_path: Path, trap: str) -> None:
    directory, file = tmp_path / "it", tmp_path / "it" / "passwd"
    directory.mkdir(mode=0o755)
    file.write_text("")
    given = directory
    if trap == "nested":
        (directory / "more").mkdir()
    elif trap == "writable":
        directory.chmod(0o777)
    elif trap == "foreign":
        os.chown(directory, 1234, 1234)
    else:
        given = tmp_path / "link"
        given.symlink_to(directory)
    before = directory.stat().st_uid
    if trap == "link":
        with pytest.raises(OSError, match="Not a directory"):
            hand_over(given, Account(64998, 64998), 0o700)
    else:
        hand_over(given, Account(64998, 64998), 0o700)
    assert (directory.stat().st_uid, file.stat().st_uid) == (before, 0)
