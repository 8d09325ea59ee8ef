"""No file, log line, metric, row of the ledger, command's output or traceback holds a secret (issue 12, 5).

The last test of a run: it looks at what all others left, and first leaves something itself.
"""

from __future__ import annotations

import binascii
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import evidence
from imds_proxy.emulator.credentials import SECRET_MARK
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.emulator.tokens import TOKEN_MARK
from proxy import TOKEN_HEADER, TTL_HEADER, Proxy, ask, running_proxy
from turned import LISTING, ROLE

TOKEN = "/latest/api/token"


def use_all(service: Emulator, proxy: Proxy, token: str, foreign: str, secret: str) -> None:
    """Secrets come and go in every way that there is, and where no client should put them."""
    for path in (ROLE, LISTING, "meta-data/all", "user-data", "dynamic/instance-identity/pkcs7?audience=1"):
        proxy.get(f"/latest/{path}")
        proxy.get(f"/latest/{path}", token)
    for config in ("aliyun-assist-agent-provision", "aliyun-assist-server-crt"):
        assert proxy.get(f"/latest/global-config/{config}").status == 200
    for wrong in (foreign, token[:-3] + "x==", secret, "x" * 3000):
        proxy.get("/latest/meta-data/mac", wrong)
    for path in (
        f"/latest/{token}",
        f"/latest/api/token/{foreign}/",
        f"/latest/{ROLE}?t={token}",
        f"/{secret}",
    ):
        proxy.get(path)
    for where in (
        {"X-Forwarded-For": token},
        {"Origin": secret},
        {"Host": token},
        {"User-Agent": f"agent/{secret}"},
        {TTL_HEADER: token},
        {"Connection": TOKEN_HEADER, TOKEN_HEADER: token},
        {"Cookie": f"token={token}"},
    ):
        proxy.request("GET", f"/latest/{ROLE}", where)
        proxy.request("PUT", TOKEN, where)
        proxy.request(token[:40], "/latest/", where)
    for service_fault in ("half_body", "garbage", "hang", None):
        service.patch(fault=service_fault)
        proxy.get(f"/latest/{LISTING}", token)
        proxy.get("/latest/user-data")
    service.revoke_tokens()
    proxy.get("/latest/meta-data/vpc-id", token)
    service.patch(role=None)
    proxy.get(f"/latest/{ROLE}")


def command(*words: str) -> None:
    """A command's output is kept."""
    subprocess.run(
        [sys.executable, "-m", "imds_proxy", *words], capture_output=True, text=True, timeout=60, check=False
    )


def leave_evidence(directory: Path, tokens: str) -> None:
    port = free_port()
    settings = {
        "tokens": tokens,
        "admin": {"socket": str(directory / "admin.sock"), "metrics": f"127.0.0.1:{port}"},
        "cache": {"volatile": "1s"},
    }
    with (
        Emulator(Settings(http_tokens="required")) as service,
        running_proxy(service.address, settings, state=directory / "state") as proxy,
    ):
        token = proxy.put_token(600).body.decode()
        foreign = ask(*service.address, "PUT", TOKEN, {TTL_HEADER: "600"}).body.decode()
        found = json.loads(proxy.get(f"/latest/{ROLE}").body)
        assert SECRET_MARK in found["AccessKeySecret"] and SECRET_MARK in found["SecurityToken"]
        assert TOKEN_MARK in foreign
        use_all(service, proxy, token, foreign, found["SecurityToken"])
        curl = (
            "curl",
            "-s",
            "-H",
            f"{TOKEN_HEADER}: {token}",
            f"http://127.0.0.1:{proxy.port}/latest/user-data",
        )
        subprocess.run(curl, capture_output=True, timeout=20, check=False)
        for path in ("/metrics", "/healthz", "/readyz"):
            evidence.keep("metrics", scraped(port, path))
        command("reload", "-c", str(proxy.config))
        assert proxy.stop() == 0
        log = str(proxy.log_path)
        for source in (log, str(directory / "state" / "ledger.db")) if tokens == "real" else ():
            for words in (["report"], ["report", "--json"], ["policy", "suggest"], ["ready"]):
                command(*words, source)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


def scraped(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def files(*directories: Path) -> Iterator[tuple[str, bytes]]:
    """All that can be read; neither what is linked to, nor devices, nor the program's own code."""
    for directory in directories:
        for place, below, names in os.walk(directory):
            below[:] = [name for name in below if name != "site-packages"]
            for name in names:
                path = Path(place, name)
                try:
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_size < 64 << 20:
                        yield str(path.relative_to(directory)), path.read_bytes()
                except OSError:
                    continue


@pytest.mark.slow
def test_nothing_that_the_tests_left_holds_a_secret_or_a_token(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for tokens in ("real", "sealed"):
        (tmp_path / tokens).mkdir()
        leave_evidence(tmp_path / tokens, tokens)
    looked, size = 0, 0
    found: list[str] = []
    for name, data in files(Path(os.environ[evidence.PLACE]), tmp_path_factory.getbasetemp()):
        looked, size = looked + 1, size + len(data)
        found += evidence.leaks(name, data)
    print(
        f"{looked} files, {size / 2**20:.1f} MiB, of {len(evidence.given)} given tokens: {len(found)} leaks"
    )
    assert looked > 10
    assert found == []


FORMS: dict[str, Callable[[bytes], bytes]] = {"as it is": bytes, "hex": binascii.hexlify, "base64": b64encode}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", [SECRET_MARK, TOKEN_MARK, evidence.ENROLMENT])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_leak_would_be_found_in_whatever_form(form: str, mark: str, shift: int) -> None:
    text = f"{'x' * shift}{mark}the rest".encode()
    assert list(evidence.leaks("a file", b"before " + FORMS[form](text) + b" after"))
    assert not list(evidence.leaks("a file", FORMS[form](b"x" * shift + b"nothing like it and the rest")))


def test_what_was_kept_is_there_until_the_end() -> None:
    place = Path(os.environ[evidence.PLACE])
    before = len(list(place.iterdir()))
    evidence.keep("nothing", "x")
    assert len(list(place.iterdir())) == before + 1
