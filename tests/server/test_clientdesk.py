"""Clients are found out beside the requests, once for each caller, and told to log and ledger."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from imds_proxy.clients.usage import Call
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.ledger.entries import Described, StableCaller
from imds_proxy.policy.caller import Caller, Identity, Process, Program
from imds_proxy.protocol.session import Session
from imds_proxy.server.clientdesk import ClientDesk, usage_of
from imds_proxy.server.events import facts_of
from imds_proxy.server.log import Log
from imds_proxy.server.looking import LookingThread
from proxy import running_proxy
from trees import distribution, write

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
STAY = "print('here', flush=True); import sys; sys.stdin.read()"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    write(tmp_path, "/venv/pyvenv.cfg", f"home = {Path(sys.executable).resolve().parent}\n")
    distribution(tmp_path, f"/venv/lib/{version}/site-packages", "alibabacloud-credentials", "0.3.2")
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python").symlink_to(Path(sys.executable).resolve())
    return tmp_path / "venv"


@contextmanager
def running(environment: Path, words: tuple[str, ...] = (), **variables: str) -> Iterator[Caller]:
    words = words or (f"{environment}/bin/python", "-c", STAY)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
    try:
        assert process.stdout is not None and process.stdout.readline()
        exe = str(Path(f"/proc/{process.pid}/exe").readlink())
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        yield Caller(
            Identity(0, unit="app.service"), process=Process(process.pid, exe, None, words), start_ticks=ticks
        )
    finally:
        process.kill()
        process.communicate()


def _wake(loop: asyncio.AbstractEventLoop, idle: asyncio.Event) -> None:
    loop.call_soon_threadsafe(idle.set)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Desk:
    """A desk, and what it said and would write."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.log, self._capsys = Log("json"), capsys
        self.desk = ClientDesk(self.log, facts_of)

    def saw(
        self,
        caller: Caller,
        agent: str = "python-urllib3/2.0",
        session: Session = Session.LEGACY,
        path: str = ROLE,
    ) -> None:
        self.desk.saw(caller, StableCaller.of(caller), session, agent, path, "")

    async def settle(self) -> list[Described]:
        """What was found out, once the thread is idle."""
        self.desk._work_off()
        idle = asyncio.Event()
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            if self.desk._thread.put(partial(_wake, loop, idle)):
                break
            await asyncio.sleep(0.02)
        await asyncio.wait_for(idle.wait(), 20)
        return self.desk.take()

    def lines(self) -> list[dict[str, object]]:
        self.log.close()
        self.desk.close()
        return [json.loads(line) for line in self._capsys.readouterr().err.splitlines()]


def test_a_caller_s_client_is_told_to_log_and_ledger(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> list[Described]:
        with running(environment) as caller:
            desk.saw(caller)
            return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert one.client == {"name": "alibabacloud-credentials", "version": "0.3.2", "where": str(environment)}
    assert (
        one.fix == "upgrade alibabacloud-credentials to >= 0.3.6 and set ALIBABA_CLOUD_IMDSV1_DISABLED=true"
    )
    assert one.credentials is True
    (line,) = desk.lines()
    assert line["event"] == "client"
    assert line["client"] == one.client
    assert line["advice"] == one.advice
    assert line["unit"] == "app.service"


def test_what_was_seen_before_is_not_looked_at_again(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> list[Described]:
        with running(environment) as caller:
            desk.saw(caller)
            await desk.settle()
            for _ in range(3):
                desk.saw(caller)
            return await desk.settle()

    desk = Desk(capsys)
    assert asyncio.run(scenario()) == []
    assert len(desk.lines()) == 1


def test_a_second_client_of_the_same_caller_changes_the_verdict(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> list[Described]:
        with running(environment) as caller:
            desk.saw(caller)
            desk.saw(caller, "curl/8.0", path="/latest/meta-data/zone-id")
            return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert [finding["slug"] for finding in one.findings] == ["upgrade", "own-code"], one


def test_a_hardened_caller_is_named_by_its_user_agent_and_not_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> list[Described]:
        desk.saw(
            Caller(Identity(0), process=Process(os.getpid(), "/usr/bin/python3")),
            "Cloud-Init/24.4",
            Session.HARDENED,
        )
        return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert one.client == {"name": "cloud-init", "version": "24.4", "where": None}
    assert (one.advice, one.fix) == (None, None)


def test_a_process_that_is_gone_leaves_what_its_request_says(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> list[Described]:
        desk.saw(Caller(Identity(0), process=Process(2**22, "/srv/app")), "")
        return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert one.client is None
    assert "is not known (its process could not be looked at)" in str(one.advice)


def test_token_calls_and_the_proxy_s_own_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> list[Described]:
        desk.saw(Caller(Identity(0)), session=Session.TOKEN)
        desk.saw(Caller(Identity(0), is_self=True))
        return await desk.settle()

    desk = Desk(capsys)
    assert asyncio.run(scenario()) == []


def test_a_flood_of_callers_is_looked_at_at_a_bounded_rate(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        with running(environment) as caller:
            for number in range(500):
                other = Caller(
                    caller.identity,
                    process=caller.process,
                    start_ticks=caller.start_ticks,
                    program=Program(script=f"/s{number}"),
                )
                desk.saw(other)
            open_files.append(_open_files())
            await desk.settle()

    desk, open_files = Desk(capsys), list[int]()
    before = _open_files()
    asyncio.run(scenario())
    assert max(open_files) - before < 64 * 5  # what waits is held open, and only some may wait
    desk.lines()


def test_a_caller_with_many_kinds_of_calls_is_judged_for_all_of_them_and_seldom(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> list[Described]:
        with running(environment) as caller:
            for number in range(500):
                desk.saw(caller, f"agent{number}/1.0")
            return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert 30 <= len(one.findings) <= 64
    assert len(desk.lines()) <= 65


@pytest.mark.root
def test_a_daemon_that_gave_up_root_looks_all_the_same(environment: Path, tmp_path: Path) -> None:
    """At files that only root may read, with the capabilities that it kept."""
    program = (
        "import sys, urllib.request as u; headers = {'User-Agent': 'python-urllib3/2.0'};"
        "print(u.urlopen(u.Request(sys.argv[1], headers=headers)).status)"
    )
    environment.chmod(0o700)
    with (
        Emulator(settings=Settings(http_tokens="required", role="demo-role")) as service,
        running_proxy(service.address, {"user": "65534"}, state=tmp_path / "state") as proxy,
    ):
        words = [f"{environment}/bin/python", "-c", program, f"http://127.0.0.1:{proxy.port}{ROLE}"]
        done = subprocess.run(words, capture_output=True, env={}, timeout=60)
        assert done.stdout == b"200\n", done.stderr
        assert Path(f"/proc/{proxy.process.pid}/status").read_text().count("65534") >= 4
        assert proxy.stop() == 0
        (line,) = [line for line in proxy.log() if line["event"] == "client"]
    assert line["client"] == {
        "name": "alibabacloud-credentials",
        "version": "0.3.2",
        "where": str(environment),
    }


HANGING = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
service = os.open("/dev/fuse", os.O_RDWR)
assert libc.unshare(0x20000) == 0  # a mount namespace of its own
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # private
options = f"fd={service},rootmode=40000,user_id=0,group_id=0".encode()
assert libc.mount(b"hanging", sys.argv[1].encode(), b"fuse", 0, options) == 0
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_a_file_system_that_never_answers_hangs_no_request_and_no_later_look(
    environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    words = (f"{environment}/bin/python", "-c", HANGING, str(hanging))

    async def scenario() -> list[Described]:
        desk.desk._thread = LookingThread(desk.desk._gave_up, patience=0.2)
        with running(environment) as well, running(environment, words, PYTHONPATH=str(hanging)) as hostile:
            desk.saw(hostile)
            worker = desk.desk._thread._worker
            assert worker is not None
            for _ in range(1000):
                if worker.hangs(1.0):
                    break
                await asyncio.sleep(0.02)
            assert desk.desk.take() == []
            desk.saw(replace(well, program=Program(script="/srv/well.py")))
            return await desk.settle()

    desk = Desk(capsys)
    (one,) = asyncio.run(scenario())
    assert one.client is not None and one.client["version"] == "0.3.2"
    # The kernel lets the hanging look go when its process has ended; what it says then is of no matter.
    assert [line["event"] for line in desk.lines()][:2] == ["client-look-hangs", "client"]


def test_a_shell_s_script_is_where_a_command_is_called() -> None:
    shell = Process(7, "/usr/bin/dash", None, ("/bin/sh", "/etc/cron.hourly/tag"))
    caller = Caller(
        Identity(0), process=Process(8, "/usr/bin/curl"), parents=(shell, Process(1, "/sbin/init"))
    )
    call = Call("curl/8", ROLE, Session.LEGACY)
    assert usage_of(caller, (call,)).shell_script == "/etc/cron.hourly/tag"
    by_timeout = replace(caller, parents=(Process(9, "/usr/bin/timeout"), shell))
    assert usage_of(by_timeout, ()).shell_script == "/etc/cron.hourly/tag"
    by_python = replace(caller, parents=(Process(9, "/usr/bin/python3"), shell))
    assert usage_of(by_python, ()).shell_script is None
    code = Process(7, "/bin/bash", None, ("bash", "-c", "curl ..."))
    assert usage_of(Caller(Identity(0), parents=(code,)), ()).shell_script is None
