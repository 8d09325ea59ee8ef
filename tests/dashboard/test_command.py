"""The live page in a real Chromium: seen, narrow and wide, light and dark; hostile names do nothing."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imds_proxy.demo.processes import ending
from imds_proxy.emulator.service import Emulator
from proxy import Proxy, ask, running_proxy

HOSTILE = "<img src=x onerror=document.title='owned'>"
CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--virtual-time-budget=3000",
)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A daemon with one hostile caller and two refusals."""
    with Emulator() as service, running_proxy(service.address) as proxy:
        code = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{proxy.port}/latest/meta-data/mac').read()"
        subprocess.run([sys.executable, "-c", code, HOSTILE], check=True, timeout=30)
        for _ in range(2):
            assert proxy.request("GET", "/latest/user-data", {"X-Forwarded-For": "x"}).status == 403
        yield proxy


@contextmanager
def dashboard(proxy: Proxy) -> Iterator[tuple[int, str]]:
    """Its port and one-time key."""
    words = [sys.executable, "-m", "imds_proxy", "dashboard", "-c", str(proxy.config)]
    with ending(subprocess.Popen(words, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/(\S+)", process.stdout.readline())
        assert found
        yield int(found[1]), found[2]


def cookie_of(port: int, key: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/{key}")
    response = connection.getresponse()
    assert (response.status, response.getheader("Location")) == (303, "/")
    cookie = response.getheader("Set-Cookie") or ""
    connection.close()
    return cookie.split(";")[0]


def test_the_page_is_for_the_one_who_has_the_key_and_for_nobody_else(proxy: Proxy) -> None:
    with dashboard(proxy) as (port, key):
        assert ask("127.0.0.1", port, "GET", "/").status == 403
        cookie = cookie_of(port, key)
        assert ask("127.0.0.1", port, "GET", f"/{key}").status == 403, "it opens once"
        end = time.monotonic() + 30
        while True:
            page = ask("127.0.0.1", port, "GET", "/", {"Cookie": cookie}, timeout=30)
            assert page.status == 200
            text = page.body.decode()
            if "NOT READY" in text:
                break
            assert time.monotonic() < end, "the ledger is written every second"
            time.sleep(0.2)
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert ask("127.0.0.1", port, "GET", "/", {"Cookie": cookie, "Host": "evil.example"}).status == 403
        assert ask("127.0.0.1", port, "POST", "/", {"Cookie": cookie}).status == 405
    assert "refused: relayed" in text
    assert "upstream budget" in text


@pytest.mark.clients
@pytest.mark.parametrize(("name", "size"), [("wide", "1280,1400"), ("phone", "360,1800")])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it(proxy: Proxy, tmp_path: Path, name: str, size: str, dark: bool) -> None:
    picture = tmp_path / "page.png"
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    with dashboard(proxy) as (port, key):
        url = f"http://127.0.0.1:{port}/{key}"
        words = [*CHROMIUM, *scheme, f"--user-data-dir={tmp_path}/profile", f"--window-size={size}"]
        done = subprocess.run(
            [*words, f"--screenshot={picture}", url], capture_output=True, text=True, timeout=120
        )
    assert picture.exists(), done.stderr
    assert picture.stat().st_size > 10_000
    if target := os.environ.get("IMDS_PROXY_KEEP_SCREENSHOTS"):
        Path(target, f"dashboard-{name}-{'dark' if dark else 'light'}.png").write_bytes(picture.read_bytes())


@pytest.mark.clients
def test_hostile_names_do_nothing_in_a_browser(proxy: Proxy, tmp_path: Path) -> None:
    with dashboard(proxy) as (port, key):
        words = [*CHROMIUM, f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
        url = f"http://127.0.0.1:{port}/{key}"
        done = subprocess.run([*words, url], capture_output=True, text=True, timeout=120)
    assert "NOT READY - imds-proxy</title>" in done.stdout
    assert "<img" not in done.stdout


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"admin: {{socket: {tmp_path}/none.sock}}\n")
    words = [sys.executable, "-m", "imds_proxy", "dashboard", "-c", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "no daemon answers" in done.stderr
