"""The shipped units as texts: what systemd says of them, without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unit_machine import UNIT, UNITS

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")

HOST, EBPF = (UNITS / UNIT).read_text(), (UNITS / "ebpf.conf").read_text()
# Of a drop-in's lists systemd takes both; offline it reads one file.
VARIANTS = {"host": (HOST, 2.5), "ebpf": (HOST + EBPF, 4.0)}


def analysed(tmp_path: Path, text: str) -> str:
    unit = tmp_path / UNIT
    unit.write_text(text.replace("/usr/bin/imds-proxy", "/bin/true"))
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={"LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exposure_is_low(tmp_path: Path, variant: str) -> None:
    text, limit = VARIANTS[variant]
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analysed(tmp_path, text))
    assert overall is not None
    print(f"{variant}: {overall[1]}")
    assert float(overall[1]) <= limit


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_finding_that_is_left_is_explained_in_the_unit(tmp_path: Path, variant: str) -> None:
    text, _ = VARIANTS[variant]
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    found = re.findall(r"✗ ([A-Z]\w+)=", analysed(tmp_path, text))
    assert found
    unexplained = sorted({name for name in found if f"#   {name}=" not in comments})
    assert unexplained == []


def test_each_capability_has_its_reason(tmp_path: Path) -> None:
    for text in (HOST, EBPF):
        for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
            (given,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
            reasons = re.findall(r"^#   (CAP_\w+) +\S", text, re.MULTILINE)
            assert given.split() == reasons


@pytest.mark.parametrize("name", [UNIT, "imds-proxy.socket"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, name: str) -> None:
    for one in (UNIT, "imds-proxy.socket"):
        text = (UNITS / one).read_text().replace("/usr/bin/imds-proxy", "/bin/true")
        (tmp_path / one).write_text(re.sub("^Documentation=.*$", "", text, flags=re.MULTILINE))
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if line.startswith(name)]
    assert said == []


def test_what_systemd_239_does_not_know_it_can_do_without() -> None:
    """Keys by the version that brought them, from its release notes; an older one warns and passes over."""
    later = {"WatchdogSignal": 240, "ProtectHostname": 242, "ProtectKernelLogs": 244, "ProtectClock": 245}
    needed = {"Type", "ExecStart", "Restart", "WatchdogSec", "FileDescriptorStoreMax", "User"}
    keys = set(re.findall(r"^(\w+)=", HOST + EBPF, re.MULTILINE))
    known = {"CPUWeight", "MemorySwapMax", "MemoryDenyWriteExecute", "KeyringMode", "LockPersonality"}
    assert needed <= keys
    assert not needed & set(later)
    assert keys & set(later) == set(later)
    assert known <= keys  # 239 has these
    # Newer ones that would change what the unit does, not only how it is fenced in.
    assert not keys & {
        "RestartMode",
        "RestartSteps",
        "FileDescriptorStorePreserve",
        "OpenFile",
        "RestartMaxDelaySec",
    }
    assert "Type=notify\n" in HOST  # notify-reload is of 253
