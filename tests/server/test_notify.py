from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.server.notify import Notifier, inherited, watchdog_interval
from manager import Manager, service_manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@imds-notify-{os.getpid()}-{time.monotonic_ns()}"
    with service_manager(tmp_path / "notify" if request.param == "path" else abstract) as manager:
        yield manager


def test_what_a_service_says_arrives_in_order_and_in_systemds_words(
    manager: Manager, notifier: Notifier
) -> None:
    notifier.ready("serving")
    notifier.alive()
    notifier.reloading()
    notifier.status("the service\nanswers")
    notifier.stopping("draining")
    assert manager.heard() == [
        "READY=1\nSTATUS=serving",
        "WATCHDOG=1",
        "RELOADING=1",
        "STATUS=the service answers",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_a_stored_descriptor_is_the_same_open_file(manager: Manager, notifier: Notifier) -> None:
    read, write = os.pipe()
    assert notifier.store("pipe", [write])
    os.close(write)
    assert manager.heard() == ["FDSTORE=1\nFDNAME=pipe"]
    os.write(manager.held["pipe"][0], b"x")
    assert os.read(read, 1) == b"x"
    notifier.unstore("pipe")
    assert manager.heard() == ["FDSTOREREMOVE=1\nFDNAME=pipe"]
    assert os.read(read, 1) == b""  # its last holder has let go
    os.close(read)


def test_a_descriptor_that_cannot_be_polled_is_marked_so(manager: Manager, notifier: Notifier) -> None:
    notifier.store("map", [0], polled=False)
    assert manager.heard() == ["FDSTORE=1\nFDNAME=map\nFDPOLL=0"]


@pytest.mark.parametrize("name", ["", "a:b", "a\nFDSTORE=1", "é", "x" * 256])
def test_a_name_that_would_be_read_as_something_else_is_refused(notifier: Notifier, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        notifier.store(name, [0])


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier.of_environment({})
    assert not notifier.listening
    notifier.ready("serving")
    assert not notifier.store("a", [0])


def test_a_manager_that_has_left_harms_nobody(tmp_path: Path) -> None:
    with service_manager(tmp_path / "notify"):
        notifier = Notifier(str(tmp_path / "notify"))
    notifier.ready("serving")
    assert not notifier.store("a", [0])
    notifier.close()
    notifier.alive()


def test_a_manager_that_does_not_read_stops_nobody(manager: Manager, notifier: Notifier) -> None:
    notifier._wire.settimeout(0.001)  # type: ignore[union-attr]  # the point is that it gives up
    for _ in range(2000):
        notifier.alive()
    assert 0 < len(manager.heard()) < 2000


def test_the_watchdog_is_for_the_process_that_it_names() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 7) == 3.0
    assert watchdog_interval({"WATCHDOG_USEC": "3000000"}, 7) == 3.0
    assert watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, 7) is None
    assert watchdog_interval({"WATCHDOG_USEC": "soon"}, 7) is None
    assert watchdog_interval({"WATCHDOG_USEC": "0"}, 7) is None
    assert watchdog_interval({}, 7) is None


def test_descriptors_for_another_process_or_of_no_number_are_not_ours() -> None:
    assert inherited({}, 7) == []
    assert inherited({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) == []
    assert inherited({"LISTEN_PID": "7", "LISTEN_FDS": "one"}, 7) == []


def test_passed_descriptors_have_their_names_and_no_child_gets_them_or_the_variables() -> None:
    program = """
import os, subprocess, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["NOTIFY_SOCKET"] = "/x"
from imds_proxy.server.notify import Notifier, inherited
Notifier.of_environment(os.environ)
print(inherited(os.environ, os.getpid()))
print([name for name in os.environ if name.startswith(("LISTEN", "NOTIFY"))])
print(os.get_inheritable(3), os.get_inheritable(4))
"""
    first, second = os.pipe()
    script = f'exec {sys.executable} -c "$0" 3<&{first} 4>&{second}'
    environment = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "kept-listener-a:web.socket"}
    done = subprocess.run(
        ["bash", "-c", script, program],
        env=environment,
        pass_fds=(first, second),
        capture_output=True,
        text=True,
    )
    os.close(first)
    os.close(second)
    assert done.stdout == "[('kept-listener-a', 3), ('web.socket', 4)]\n[]\nFalse False\n", done.stderr
