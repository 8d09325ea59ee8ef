"""What a policy of many rules costs apart from requests: the bench, scaled down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / "bench" / "policy.py"


def test_a_policy_is_measured_from_its_text_to_a_new_process() -> None:
    done = subprocess.run([sys.executable, BENCH, "50"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "50 rules, 0.0 MiB, as the suite writes them"
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "read",
        "made rules of",
        "looked for hidden ones",
    ]
    assert lines[-1].startswith("the file of a new process, a path each: ")
