from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from imds_proxy.config_values import Address
from imds_proxy.intercept import passing
from imds_proxy.intercept.redirect import InterceptError
from netns import ip
from plans import SERVICES

pytestmark = pytest.mark.usefixtures("network")
_CLIENT = f"""
import socket, sys
client = socket.create_connection({(SERVICES[0].host, 80)})
print(client.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def client() -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """Another process with a connection to the service."""
    ip(f"addr add {SERVICES[0].host}/32 dev lo")
    with socket.create_server((SERVICES[0].host, 80)):
        process = subprocess.Popen(
            [sys.executable, "-c", _CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        yield process, Address(SERVICES[0].host, int(process.stdout.readline()))
        process.communicate()


def test_anothers_connection_goes_past_ours_and_redirected_ones_do_not(
    client: tuple[subprocess.Popen[str], Address],
) -> None:
    process, end = client
    with socket.create_connection((SERVICES[0].host, 80)):
        (found,) = passing.passing(SERVICES, ())
        assert found.local == end
        assert passing.passing(SERVICES, {end}) == []
    (shown,) = passing.described([found])
    assert shown == {
        "local": str(end),
        "remote": str(SERVICES[0]),
        "uid": os.getuid(),
        "pid": process.pid,
        "exe": os.path.realpath(sys.executable),
    }
    assert passing.close([found]) == 1
    assert passing.passing(SERVICES, ()) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EOPNOTSUPP, "CONFIG_INET_DIAG_DESTROY"), (errno.EPERM, "CAP_NET_ADMIN"), (errno.EIO, "error")],
)
def test_a_kernel_that_closes_none_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refuse(_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(passing, "destroy", refuse)
    with pytest.raises(InterceptError, match=f"{said}.*; restart their programs"):
        passing.close([])
