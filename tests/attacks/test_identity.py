"""Borrowed names, other users, units and containers (ATTACKS 5-10, 22-27, 29, 30c), a daemon in enforce."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.emulator.service import Emulator
from places import cgroup, curl, within
from proxy import TOKEN_HEADER, TTL_HEADER, Proxy, running_proxy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users, cgroups, namespaces"),
]

OWNER, OTHER = 4001, 4002
CURL = "/usr/bin/curl"
PYTHON = str(Path(sys.executable).resolve())
ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
LISTING = "/latest/meta-data/ram/security-credentials/"
SCRIPT = Path("/tmp/imds-proxy-test-allowed.py")
POLICY = {
    "enforcement": "enforce",
    "rules": [
        {"name": "owner", "caller": {"exe": CURL, "uid": str(OWNER)}, "paths": ["meta-data/ram/**"]},
        {"name": "script", "caller": {"exe": PYTHON, "script": str(SCRIPT), "uid": str(OWNER)}},
        {"name": "nobody else", "paths": ["meta-data/ram/**"], "allow": False},
    ],
}
# Begins as root: `connect` makes a socket of the caller's uid, and the process can go on to be anything.
ASK = """
import os, socket, sys, time, encodings.idna
port, path, uid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def connect():
    os.setegid(uid); os.seteuid(uid)
    wire = socket.create_connection(("127.0.0.1", port), 5)
    os.seteuid(0); os.setegid(0)
    return wire
def become(uid):
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
def ask(wire):
    head = "GET", path, "HTTP/1.1\\r\\nHost: 100.100.100.200\\r\\nConnection: close\\r\\n\\r\\n"
    wire.sendall(" ".join(head).encode())
    return b"".join(iter(lambda: wire.recv(65536), b"")).split(b"\\r\\n")
def say(lines):
    slug = [line.split()[1].decode() for line in lines if line.startswith(b"X-Imds-Proxy: ")]
    print(lines[0].split()[1].decode(), *slug, flush=True)
"""


@pytest.fixture(scope="module", params=["procfs", "ebpf"])
def guarded(service: Emulator, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    if request.param == "ebpf" and CgroupTree.find().mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    with running_proxy(service.address, {"policy": POLICY, "attribution": request.param}) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    yield
    SCRIPT.unlink(missing_ok=True)


def python(proxy: Proxy, code: str, path: str = ROLE, uid: int = OWNER, script: Path | None = None) -> str:
    """What a Python program with these statements prints."""
    words = [sys.executable, "-c", ASK + code]
    if script is not None:
        script.write_text(ASK + code)
        words = [sys.executable, str(script)]
    done = subprocess.run(
        [*words, str(proxy.port), path, str(uid)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SPELLINGS = [
    ROLE,
    ROLE.replace("ram", "Ram"),
    ROLE.upper(),
    ROLE.replace("latest", "LATEST"),
    ROLE.replace("latest", "1.0"),
    ROLE.replace("latest", "2016-01-01"),
    ROLE.replace("latest", "2031-12-31"),
    ROLE.replace("latest", "future"),
    ROLE.replace("/latest", ""),
    "/" + ROLE.replace("/", "//"),
    ROLE + "/",
    ROLE + "/Expiration",
    ROLE.replace("ram", "%72am"),
    LISTING,
    LISTING.rstrip("/"),
    "/latest/meta-data/ram",
    "/latest/meta-data/all",
]


@pytest.mark.parametrize("session", ["legacy", "hardened", "fallback"])
@pytest.mark.parametrize("path", SPELLINGS)
def test_5_to_10_a_denied_item_is_denied_by_every_name(guarded: Proxy, path: str, session: str) -> None:
    options: list[str] = []
    if session == "hardened":
        _, token = curl(guarded.port, "/latest/api/token", "-H", f"{TTL_HEADER}: 60", uid=OTHER, method="PUT")
        options = ["-H", f"{TOKEN_HEADER}: {token}"]
    if session == "fallback":
        curl(guarded.port, path, "-H", f"{TOKEN_HEADER}: made-up", uid=OTHER)
    status, body = curl(guarded.port, path, "--path-as-is", *options, uid=OTHER)
    assert (status, "The rule 'nobody else' of policy.rules refuses this." in body) == (403, True)


@pytest.mark.parametrize("path", [ROLE, ROLE.replace("/latest", "/2031-12-31"), LISTING])
def test_the_named_caller_is_served(guarded: Proxy, path: str) -> None:
    assert curl(guarded.port, path, uid=OWNER)[0] in (200, 404)
    assert curl(guarded.port, ROLE, uid=OWNER)[0] == 200


def test_a_path_that_only_begins_alike_is_not_denied(guarded: Proxy) -> None:
    assert curl(guarded.port, "/latest/meta-data/ramification", uid=OTHER)[0] == 404


def test_22_who_left_before_the_look_up_is_unresolved_and_never_root(guarded: Proxy) -> None:
    os.kill(guarded.process.pid, signal.SIGSTOP)
    try:
        request = "b'GET /latest/user-data HTTP/1.0\\r\\n\\r\\n'"
        wire = f"become(uid); wire = {OPEN}; wire.sendall({request})"
        python(guarded, wire, path="/latest/user-data")
    finally:
        os.kill(guarded.process.pid, signal.SIGCONT)
    event = refusal(guarded, "unresolved")
    assert event["path"] == "/latest/user-data"
    # The kernel's notes keep who it was; without them nobody can tell.
    noted = "pid" in event
    assert event.get("uid") == (OWNER if noted else None)
    assert event.get("exe") is None


@pytest.mark.parametrize(
    "borrowing",
    [
        ["/usr/bin/curl"],  # the allowed program itself
        ["env", "LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6", "LD_LIBRARY_PATH=/tmp", CURL],
        ["bash", "-c", f'exec -a {CURL} {CURL} "$@"', "bash"],
    ],
)
def test_25a_another_users_process_in_the_allowed_program_is_refused(
    guarded: Proxy, borrowing: list[str]
) -> None:
    status = subprocess.run(
        within([*borrowing, "-s", "-o", "/dev/null", "-w", "%{http_code}", *url(guarded, ROLE)], OTHER),
        capture_output=True,
        text=True,
        timeout=20,
        cwd="/",
    ).stdout
    assert status == "403"


def url(proxy: Proxy, path: str) -> list[str]:
    return ["-H", "Host: 100.100.100.200", f"http://127.0.0.1:{proxy.port}{path}"]


@pytest.fixture
def own_tmp() -> Iterator[Path]:
    directory = Path("/tmp/imds-proxy-test-place")
    directory.mkdir(mode=0o755)
    yield directory
    shutil.rmtree(directory)


def test_25_a_copy_elsewhere_is_not_the_program(guarded: Proxy, own_tmp: Path) -> None:
    copy = own_tmp / "curl"
    shutil.copy(CURL, copy)
    assert curl(guarded.port, ROLE, uid=OWNER, program=str(copy))[0] == 403
    assert curl(guarded.port, ROLE, uid=OWNER)[0] == 200


@pytest.mark.parametrize(
    "disguise",
    [
        "",
        "open('/proc/self/comm', 'w').write('curl')",
        "sys.argv[0] = '/usr/bin/curl'",
    ],
)
def test_25_what_a_program_calls_itself_is_no_name(guarded: Proxy, disguise: str) -> None:
    assert python(guarded, f"{disguise}\nbecome(uid)\nsay(ask(connect()))".replace("connect()", OPEN)) == (
        "403 rule"
    )


OPEN = 'socket.create_connection(("127.0.0.1", port), 5)'


def test_25_a_program_that_was_bind_mounted_over_or_deleted_is_not_the_one_at_its_path(
    guarded: Proxy, own_tmp: Path
) -> None:
    copy = own_tmp / "curl"
    shutil.copy(CURL, copy)
    status = "-s -o /dev/null -w %{http_code} -H Host:100.100.100.200"
    address = f"http://127.0.0.1:{guarded.port}{ROLE}"
    forged = (
        f"mount --bind {copy} {CURL} && exec setpriv --reuid={OWNER} --regid={OWNER} --clear-groups {CURL}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{forged} {status} {address}"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == "403", done.stderr


def test_26_an_allowed_interpreters_other_script_is_refused(guarded: Proxy) -> None:
    code = f"become(uid)\nsay(ask({OPEN}))"
    assert python(guarded, code, path="/latest/meta-data/ram/", script=SCRIPT).startswith(("200", "404"))
    assert python(guarded, code, script=SCRIPT.with_name("imds-proxy-test-other.py")) == "403 rule"
    SCRIPT.with_name("imds-proxy-test-other.py").unlink()
    assert python(guarded, code) == "403 rule"


def test_23_a_program_that_was_named_before_exec_keeps_its_own_name(guarded: Proxy) -> None:
    """The look-up is at accept: what it becomes after that gains nothing."""
    SCRIPT.write_text(
        ASK
        + "become(uid); wire = socket.socket(fileno=int(sys.argv[4])); wire.setblocking(True); say(ask(wire))"
    )
    code = f"""
os.setegid(uid); os.seteuid(uid)
wire = {OPEN}
time.sleep(0.3)
os.seteuid(0); os.setegid(0)
os.set_inheritable(wire.fileno(), True)
os.execv(sys.executable, [sys.executable, {str(SCRIPT)!r}, *sys.argv[1:4], str(wire.fileno())])
"""
    other = SCRIPT.with_name("imds-proxy-test-other.py")
    try:
        assert python(guarded, code, script=other) == "403 rule"
    finally:
        other.unlink()


@pytest.mark.parametrize(("heir", "outcome"), [(OWNER, "200"), (OTHER, "403 shared-socket")])
def test_24_every_holder_of_a_connection_must_be_allowed(guarded: Proxy, heir: int, outcome: str) -> None:
    """A process of the allowed user and one that inherited the socket, of the same user and of another."""
    code = f"""
wire = connect()
parent, child = os.pipe()
if os.fork() == 0:
    become({heir})
    os.write(child, b"x")
    time.sleep(5)
    os._exit(0)
os.read(parent, 1)
become(uid)
say(ask(wire))
"""
    SCRIPT.write_text(ASK + code)
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(guarded.port), ROLE, str(OWNER)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == outcome
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def test_27_root_in_a_user_namespace_with_a_forged_program_is_neither(guarded: Proxy, own_tmp: Path) -> None:
    copy = own_tmp / "curl"
    shutil.copy(CURL, copy)
    address = f"http://127.0.0.1:{guarded.port}"
    head = "-s -o /dev/null -w %{http_code}/%header{x-imds-proxy} -H Host:100.100.100.200"
    inside = (
        f"id -u; mount --bind {copy} {CURL} && {CURL} {head} {address}{ROLE}; echo;"
        f"umount {CURL}; {CURL} {head} {address}{ROLE}; echo; {CURL} {head} {address}/latest/user-data"
    )
    done = subprocess.run(
        within(["unshare", "-Urm", "sh", "-c", inside], OWNER),
        capture_output=True,
        text=True,
        timeout=20,
        cwd="/",
    )
    # Not root, not the host's curl; and the host's own curl in there is in a place that no rule names.
    assert done.stdout.split() == ["0", "403/rule", "403/container", "403/container"], done.stderr


@pytest.mark.parametrize("how", ["-C", "-pf"])
def test_27_a_namespace_of_its_own_makes_a_container(guarded: Proxy, how: str) -> None:
    words = ["unshare", how, CURL, "-s", "-o", "/dev/null", "-w", "%{http_code}"]
    for path, status in (("/latest/user-data", "403"), ("/latest/meta-data/mac", "200")):
        done = subprocess.run([*words, *url(guarded, path)], capture_output=True, text=True, timeout=20)
        assert done.stdout == status, done.stderr
    hardened = ["unshare", "-m", *words[2:], *url(guarded, "/latest/user-data")]
    assert subprocess.run(hardened, capture_output=True, text=True, timeout=20).stdout in ("200", "404")


@pytest.mark.parametrize("enforcement", ["audit", "enforce"])
def test_29_a_token_of_another_user_or_unit_is_refused_in_enforce_and_logged_in_audit(
    service: Emulator, enforcement: str
) -> None:
    mac = "/latest/meta-data/mac"
    expected = 401 if enforcement == "enforce" else 200
    settings = {"policy": {"enforcement": enforcement}}
    with (
        running_proxy(service.address, settings) as proxy,
        cgroup("imds-proxy-test-a.service") as a,
        cgroup("imds-proxy-test-b.service") as b,
    ):
        ttl = ("-H", f"{TTL_HEADER}: 60")
        _, token = curl(proxy.port, "/latest/api/token", *ttl, uid=OWNER, unit=a, method="PUT")
        with_token = ("-H", f"{TOKEN_HEADER}: {token}")
        assert curl(proxy.port, mac, *with_token, uid=OWNER, unit=a)[0] == 200
        assert curl(proxy.port, mac, *with_token, uid=OTHER, unit=a)[0] == expected
        assert curl(proxy.port, mac, *with_token, uid=OWNER, unit=b)[0] == expected
        assert curl(proxy.port, mac, *with_token, uid=OWNER)[0] == expected
        assert curl(proxy.port, mac, *with_token, uid=OWNER, unit=a)[0] == 200
        told = [event for event in proxy.log() if event.get("slug") == "token-binding"]
    kind = "refused" if enforcement == "enforce" else "would-refuse"
    assert [event["event"] for event in told] == [kind] * 3
    assert [(event["uid"], event.get("unit")) for event in told] == [
        (OTHER, "imds-proxy-test-a.service"),
        (OWNER, "imds-proxy-test-b.service"),
        (OWNER, None),
    ]


def test_29_the_put_and_the_get_of_one_script_are_two_processes_and_work(
    guarded: Proxy, own_tmp: Path
) -> None:
    script = own_tmp / "script.sh"
    script.write_text(
        f"TOKEN=$(curl -s -X PUT -H '{TTL_HEADER}: 60' -H Host:100.100.100.200 $1/latest/api/token)\n"
        f'curl -s -H "{TOKEN_HEADER}: $TOKEN" -H Host:100.100.100.200 "$1{ROLE}"\n'
    )
    done = subprocess.run(
        within(["bash", str(script), f"http://127.0.0.1:{guarded.port}"], OWNER),
        capture_output=True,
        text=True,
        timeout=20,
        cwd="/",
    )
    assert json.loads(done.stdout)["Code"] == "Success"


def test_30c_a_plain_get_after_a_failed_tokened_one_is_no_way_in(service: Emulator) -> None:
    rules = [{"name": "tokens only", "caller": {"uid": str(OTHER)}, "legacy": "refuse"}]
    for settings, slug in (
        ({"mode": "enforce"}, "legacy-refused"),
        ({"policy": {"enforcement": "enforce", "rules": rules}}, "rule-legacy"),
    ):
        with running_proxy(service.address, settings) as proxy:
            mac = "/latest/meta-data/mac"
            assert curl(proxy.port, mac, "-H", f"{TOKEN_HEADER}: made-up", uid=OTHER)[0] == 401
            status, body = curl(proxy.port, mac, uid=OTHER)
            assert (status, f"imds-proxy: {slug}:" in body) == (403, True)


def test_a_rule_may_let_one_caller_stay_in_normal_mode_where_all_others_need_a_token(
    service: Emulator,
) -> None:
    rules = [{"name": "old one", "caller": {"uid": str(OWNER)}, "legacy": "upgrade"}]
    with running_proxy(service.address, {"mode": "enforce", "policy": {"rules": rules}}) as proxy:
        assert curl(proxy.port, "/latest/meta-data/mac", uid=OWNER)[0] == 200
        assert curl(proxy.port, "/latest/meta-data/mac", uid=OTHER)[0] == 403


def refusal(proxy: Proxy, slug: str) -> dict[str, Any]:
    """The last logged refusal of this kind, soon."""
    end = time.monotonic() + 5
    while True:
        found = [event for event in proxy.log() if event.get("slug") == slug]
        if found or time.monotonic() > end:
            assert found, proxy.log()[-5:]
            return found[-1]
        time.sleep(0.02)
