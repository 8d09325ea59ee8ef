"""The demo, end to end: as a new user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from proxy import running_proxy

DEMO = [sys.executable, "-m", "imds_proxy", "demo"]


def children_of(marker: str) -> list[str]:
    """Command lines of live processes that carry `marker` in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.parametrize("way", [[], ["--no-namespace"]])
def test_old_clients_fail_without_the_proxy_and_succeed_with_it(way: list[str]) -> None:
    done = subprocess.run([*DEMO, *way], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    without, rest = done.stdout.split("2. the same service")
    behind, table = rest.split("3. who still needs a change")
    assert without.count("refused  as expected") == 3
    assert without.count("ok  ") == 2
    assert behind.count("ok  ") == 5
    for name in ("curl", "read-role-with-urllib.py", "read-role-with-old-sdk.py"):
        assert name in table
    assert "read-role-with-new-sdk.py" not in table


@pytest.mark.clients
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(number: signal.Signals) -> None:
    marker = f"IMDS_PROXY_TEST_MARKER={os.getpid()}-{number}"
    name, _, value = marker.partition("=")
    child = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, name: value},
        start_new_session=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("1."):
            break
    # As a terminal does on Ctrl-C: the whole group hears it.
    os.killpg(child.pid, number)
    child.stdout.close()
    assert child.wait(30) != 0
    assert children_of(marker) == []


@pytest.mark.clients
@pytest.mark.slow
def test_an_allowlist_suggested_from_the_demo_lets_the_demo_pass_and_no_other_script(tmp_path: Path) -> None:
    """Must show: in enforce at once it refuses nothing that was seen, and one more script is refused."""
    log, policy = tmp_path / "demo.log", tmp_path / "policy.yaml"
    words = [sys.executable, "-m", "imds_proxy"]
    subprocess.run([*DEMO, "--log", str(log)], capture_output=True, timeout=300, check=True)
    suggested = subprocess.run(
        [*words, "policy", "suggest", str(log)], capture_output=True, text=True, timeout=30, check=True
    )
    policy.write_text(suggested.stdout)
    policy.chmod(0o644)
    checked = subprocess.run([*words, "check", "-c", str(policy)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr
    again = subprocess.run([*DEMO, "-c", str(policy)], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + suggested.stdout
    assert again.stdout.count("ok  ") == 2 + 5

    rules = yaml.safe_load(suggested.stdout)["policy"]
    other = tmp_path / "other.py"
    other.write_text(
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1]).status)\n"
        "except urllib.error.HTTPError as error: print(error.code, error.headers['X-Imds-Proxy'])\n"
    )
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, {"policy": rules}) as proxy,
    ):
        for item in ("meta-data/ram/security-credentials/demo-role", "meta-data/instance-id"):
            url = f"http://{proxy.host}:{proxy.port}/latest/{item}"
            done = subprocess.run(
                [sys.executable, str(other), url], capture_output=True, text=True, timeout=30
            )
            assert done.stdout.strip() == "403 default-deny"
