"""A real headless Chromium that renders an attacker's page (ATTACKS 12, 13): it reads nothing."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.emulator.service import Emulator
from lab import metadata_lab
from proxy import Proxy, running_proxy

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
SECRETS = {ROLE, "/latest/user-data", "/latest/meta-data/all"}
PAGE = """<!doctype html><title>a picture of a cat</title><meta name=referrer content=no-referrer>
<iframe referrerpolicy=no-referrer src="{base}{role}"></iframe>
<iframe referrerpolicy=no-referrer sandbox src="{base}/latest/user-data"></iframe>
<img referrerpolicy=no-referrer src="{base}/latest/user-data">
<script src="{base}/latest/meta-data/all"></script>
<link rel=stylesheet href="{base}/latest/meta-data/all">
<object data="{base}/latest/user-data"></object>
<form id=f method=post target=x action="{base}/latest/user-data"><input name=a></form><iframe name=x></iframe>
<p id=said>nothing</p>
<script>
const said = text => document.getElementById("said").append(" " + text);
const quiet = {{referrerPolicy: "no-referrer", credentials: "omit"}};
fetch("{base}{role}", quiet).then(r => r.text()).then(said, () => said("blocked"));
fetch("{base}{role}", {{...quiet, mode: "no-cors"}}).then(() => said("opaque"), () => said("blocked"));
fetch("{base}/latest/api/token", {{...quiet, method: "PUT",
  headers: {{"X-aliyun-ecs-metadata-token-ttl-seconds": "60"}}}}).then(said, () => said("blocked"));
navigator.sendBeacon("{base}/latest/user-data", "x");
new EventSource("{base}/latest/user-data");
document.getElementById("f").submit();
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium is missing: packaging/system-packages.sh installs it")
    return found


@pytest.fixture
def served_proxy(service: Emulator) -> Iterator[Proxy]:
    with running_proxy(service.address) as running:
        yield running


def page_server(page: str) -> http.server.ThreadingHTTPServer:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)


def rendered(chromium: str, url: str, home: Path, *flags: str) -> str:
    """The page as text once its scripts have run."""
    done = subprocess.run(browse(chromium, url, home, *flags), capture_output=True, text=True, timeout=90)
    return done.stdout


def browse(chromium: str, url: str, home: Path, *flags: str) -> list[str]:
    return [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", f"--user-data-dir={home}", "--virtual-time-budget=4000", *flags),
        *("--dump-dom", url),
    ]


def refused(proxy: Proxy) -> dict[str, set[str]]:
    """Paths that were refused, by slug."""
    found: dict[str, set[str]] = {}
    for line in proxy.log():
        if line["event"] == "refused":
            found.setdefault(line["slug"], set()).add(line.get("path", ""))
    return found


@pytest.mark.clients
@pytest.mark.slow
def test_13_a_page_in_a_browser_reads_nothing(
    chromium: str, service: Emulator, served_proxy: Proxy, tmp_path: Path
) -> None:
    before = service.counters()
    page = PAGE.format(base=f"http://{served_proxy.host}:{served_proxy.port}", role=ROLE)
    with page_server(page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = rendered(chromium, f"http://127.0.0.1:{server.server_port}/", tmp_path)
        server.shutdown()
    assert "a picture of a cat" in text
    assert text.count("blocked") >= 2
    assert "AccessKey" not in text
    after = service.counters()
    assert {path for path in SECRETS if path in after.by_path and path not in before.by_path} == set()
    by_slug = refused(served_proxy)
    assert {ROLE, "/latest/user-data"} <= by_slug["browser"]
    assert "method" in by_slug  # the form's and the beacon's POST, and the preflight of the PUT


@pytest.mark.clients
@pytest.mark.slow
def test_13_a_document_that_is_opened_itself_reads_nothing(
    chromium: str, served_proxy: Proxy, tmp_path: Path
) -> None:
    """As a service that renders any address to an image or a PDF would."""
    text = rendered(chromium, f"http://{served_proxy.host}:{served_proxy.port}{ROLE}", tmp_path)
    assert "AccessKey" not in text
    assert "imds-proxy: browser" in text


@pytest.mark.clients
@pytest.mark.slow
def test_12_a_name_rebound_to_the_proxys_address_reads_nothing(
    chromium: str, served_proxy: Proxy, tmp_path: Path
) -> None:
    text = rendered(
        chromium,
        f"http://rebound.example:{served_proxy.port}{ROLE}",
        tmp_path,
        f"--host-resolver-rules=MAP rebound.example {served_proxy.host}",
    )
    assert "AccessKey" not in text
    assert "imds-proxy: host" in text
    assert json.dumps(sorted(refused(served_proxy))) == '["host"]'


@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.root
def test_13_at_the_true_address_where_a_browser_sends_no_fetch_metadata_it_reads_nothing(
    chromium: str, tmp_path: Path
) -> None:
    """To an address that is not trustworthy go no Sec-Fetch headers: the agent alone tells the iframe."""
    (tmp_path / "index.html").write_text(PAGE.format(base="http://100.100.100.200", role=ROLE))
    with metadata_lab("--http-tokens", "required") as lab, lab.proxy() as sessions:
        words = lab.words("python3", "-m", "http.server", "8000", "--directory", str(tmp_path))
        pages = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            lab.run(
                "curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "127.0.0.1:8000"
            )
            page = lab.run(*browse(chromium, "http://127.0.0.1:8000/", tmp_path / "a")).stdout
            itself = lab.run(*browse(chromium, f"http://100.100.100.200{ROLE}", tmp_path / "b")).stdout
        finally:
            pages.kill()
            pages.wait()
    assert "a picture of a cat" in page
    assert "AccessKey" not in page + itself
    assert "imds-proxy: browser" in itself
    assert sum(sessions.kinds.values()) > 0
    assert {event.get("slug") for event in sessions.events if event["event"] == "refused"} >= {
        "browser",
        "method",
    }
