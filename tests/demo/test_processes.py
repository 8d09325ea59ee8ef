"""Child processes of the demo."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path

import pytest

from imds_proxy.demo.processes import serving


def test_a_server_is_ready_when_it_is_yielded_and_gone_afterwards(tmp_path: Path) -> None:
    with serving(("emulate", "--listen", "127.0.0.1:0"), tmp_path / "log") as place:
        connection = http.client.HTTPConnection(place, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(place, timeout=5).connect()


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"did not start: .*nowhere"),
        serving(("run", "--listen", "nowhere"), tmp_path / "log"),
    ):
        pass


ORPHANING = """
import subprocess
from imds_proxy.demo.processes import leaving_none
with leaving_none():
    said = subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
    subprocess.Popen(["sleep", "60"])
print(said.stdout.strip())
"""


def test_no_process_is_left_not_even_an_orphan() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANING], capture_output=True, text=True, timeout=20)
    orphan = Path("/proc") / done.stdout.strip()
    assert orphan.name.isdecimal(), done.stderr
    assert not orphan.exists()
