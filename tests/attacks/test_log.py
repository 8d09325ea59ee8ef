"""The log and what a caller writes into it (ATTACKS 20); what must never be in it or anywhere else (37)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attack import say
from imds_proxy.emulator.service import Emulator
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.tokens import Seal
from imds_proxy.server.tokendesk import Again
from imds_proxy.upstream.tokens import Issued
from proxy import TOKEN_HEADER, Proxy, running_proxy

MAC = "/latest/meta-data/mac"
ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
HOST = b"Host: 100.100.100.200\r\n"
EVIL = '\x1b[2J\x1b]0;owned\x07\r\n{"event":"forged"}\n\u202egnp.exe\u2066\x9b31m'
CALL = f"""
import ctypes, http.client, sys
ctypes.CDLL(None).prctl(15, {EVIL.encode()[:15]!r})  # PR_SET_NAME
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "{MAC}")
sys.exit(connection.getresponse().status != 200)
"""


def call_with(proxy: Proxy, *arguments: bytes | str) -> None:
    words = [sys.executable, "-c", CALL, str(proxy.port), *arguments]
    assert subprocess.run(words, timeout=30).returncode == 0


def lines_of(proxy: Proxy) -> list[str]:
    """The log's lines as a terminal would see them; split at line feeds only."""
    time.sleep(0.2)
    return proxy.log_path.read_bytes().decode("utf-8").split("\n")[:-1]


@pytest.mark.parametrize("form", ["json", "text"])
def test_20_what_a_caller_is_called_stays_in_its_line_and_inert(service: Emulator, form: str) -> None:
    with running_proxy(service.address, {"log": {"format": form}}) as proxy:
        for argument in (EVIL, b"\xff\xfe\xc3\x28", "a" * 100_000):
            call_with(proxy, argument)
        lines = lines_of(proxy)
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 8192
        if form == "json":
            assert json.loads(line)["event"] != "forged"
        else:
            assert not line.startswith("{")
    assert sum("legacy-caller" in line for line in lines) == 1


def test_20_what_a_request_says_stays_in_its_line_and_inert(service: Emulator) -> None:
    evil = EVIL.encode()
    attacks = [
        b"GET /" + evil + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"G\x1b[31mET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /latest/%1b%5b2J HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /latest/a%20%22%7b HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X-Evil: \x9b31m\xe2\x80\xae\r\nX-Forwarded-For: \x9b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X\x1b: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \x9b31m\xe2\x80\xae\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"User-Agent: " + b"\xff" * 8000 + b"\r\nOrigin: x\r\n\r\n",
        b"a" * 20_000,
    ]
    with running_proxy(service.address) as proxy:
        for attack in attacks:
            say((proxy.host, proxy.port), attack)
        lines = lines_of(proxy)
    assert sum('"refused"' in line for line in lines) >= 6
    ours = {"runs-as-root", "ready", "legacy-caller", "client", "refused"}
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 8192
        assert json.loads(line)["event"] in ours


def secrets_of(proxy: Proxy) -> list[str]:
    """Has the daemon handle every kind of secret; the secrets."""
    token = proxy.put_token(600).body.decode()
    credentials = json.loads(proxy.get(ROLE, token).body)
    proxy.get(ROLE)
    assert proxy.get(ROLE, "made-up-secret-token").status == 401
    assert proxy.request("GET", MAC, {TOKEN_HEADER: token, "Host": "evil"}).status in (200, 403)
    document = "/latest/dynamic/instance-identity/pkcs7?audience=nonce-of-a-login"
    assert proxy.get(document, token).status == 200
    say((proxy.host, proxy.port), f"GET {MAC} HTTP/1.1\r\n{TOKEN_HEADER}: {token}\r\n\r\n".encode())
    twice = f"{TOKEN_HEADER}: {token}\r\n" * 2
    say((proxy.host, proxy.port), f"GET {MAC} HTTP/1.1\r\nHost: x\r\n{twice}\r\n".encode())
    return [
        token,
        "made-up-secret-token",
        "nonce-of-a-login",
        credentials["AccessKeySecret"],
        credentials["SecurityToken"],
        credentials["AccessKeyId"],
    ]


@pytest.mark.parametrize("tokens", ["real", "sealed"])
@pytest.mark.parametrize("mode", ["upgrade", "passthrough"])
def test_37_no_secret_is_in_the_log_or_on_the_disk(
    service: Emulator, tmp_path: Path, tokens: str, mode: str
) -> None:
    state = tmp_path / "state"
    settings = {"tokens": tokens, "mode": mode, "log": {"format": "json", "summary": "1s"}}
    with running_proxy(service.address, settings, state=state) as proxy:
        secrets = secrets_of(proxy)
        command = [
            "curl",
            "-s",
            "-H",
            f"{TOKEN_HEADER}: {secrets[0]}",
            f"http://{proxy.host}:{proxy.port}{MAC}",
        ]
        subprocess.run(command, check=True, capture_output=True)
        time.sleep(2.5)  # a summary, and the hashes on the disk
        assert proxy.stop() == 0
        written = [proxy.log_path.read_text(), *(p.read_text("latin-1") for p in state.iterdir())]
    assert "caller-summary" in written[0]
    for text in written:
        assert not [secret for secret in secrets if secret in text]


def test_37_the_daemon_leaves_no_core_and_lets_nobody_of_its_user_look_in(service: Emulator) -> None:
    with running_proxy(service.address) as proxy:
        limits = Path(f"/proc/{proxy.process.pid}/limits").read_text()
        (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        # What is not dumpable belongs to root in /proc whoever runs it; seen from a process without
        # privileges, it cannot be traced.
        look = f"import os; os.setuid(65534); open('/proc/{proxy.process.pid}/mem', 'rb')"
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
        assert "PermissionError" in done.stderr
        proxy.process.send_signal(signal.SIGABRT)
        assert proxy.process.wait(10) == -signal.SIGABRT
        assert not list(Path.cwd().glob("core*"))


def test_37_values_that_hold_secrets_do_not_show_them() -> None:
    for value in (plain(200, b"s3cret"), Seal(b"s3cret"), Issued("s3cret", 1.0, 1.0), Again("s3cret", 1.0)):
        assert "s3cret" not in repr(value)
