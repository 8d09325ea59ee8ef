"""Callers are named in the shipped unit's sandbox as well as outside of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from machine import wait_for
from quiet import is_quiet
from unit_machine import MAC, PYTHON, SERVICE, UNIT, VARIABLES, unit_machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("systemctl") is None, reason="needs root and systemd"
    ),
]

SHORT, LONG = 1000, 1000
PORT = 8200
# The sandbox as shipped; only what is run in it is another program.
NAMING = f"""[Service]
Environment={VARIABLES}:/opt/support
ExecStart=
ExecStart={PYTHON} -B /opt/support/naming_service.py {PORT}
"""
BILLING = f"""[Service]
Type=oneshot
User=daemon
PrivateTmp=yes
ProtectSystem=strict
ExecStart=/usr/bin/curl -s -m 5 http://{SERVICE}{MAC}
ExecStart=/usr/bin/curl -s -m 5 http://{SERVICE}/latest/user-data
"""
# In a directory that the unit's own view of the machine does not have.
SCRIPT = f"""#!/usr/bin/python3
import urllib.request
urllib.request.urlopen("http://{SERVICE}{MAC}", timeout=5).read()
"""


def test_two_thousand_connections_are_named_and_none_wrongly() -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/naming.conf"
    with unit_machine({}, {drop_in: NAMING}) as unit:
        unit.start()
        status = unit.machine.run("cat", f"/proc/{unit.machine.main_pid(UNIT)}/status")
        assert "\nSeccomp:\t2\n" in status  # it is in the sandbox
        assert "\nUid:\t0\t" not in status
        quiet = is_quiet()
        words = unit.python("/opt/support/crowd.py", str(PORT), str(SHORT), str(LONG))
        crowd = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
        unit.machine.run("systemctl", "stop", UNIT)
        found = json.loads(unit.machine.run("cat", "/var/lib/imds-proxy/found.json"))
    truth = {str(number): (pid, uid, lasting) for number, pid, uid, lasting in json.loads(crowd.stdout)}
    missing, without_program = {True: 0, False: 0}, {True: 0, False: 0}
    for number, (pid, uid, lasting) in truth.items():
        one = found.get(number, {"why": "not seen"})
        if one["why"] is not None:
            missing[lasting] += 1
        else:
            assert (one["pid"], one["uid"]) == (pid, uid)
            without_program[lasting] += one["exe"] is None
            assert one["exe"] is None or Path(one["exe"]).name == Path(PYTHON).name
    print(Counter(one["why"] for one in found.values()))
    print(f"unnamed: {missing[True]} of {LONG} lasting, {missing[False]} of {SHORT} short-lived")
    print(f"named in the midst of their exit, without a program: {without_program[False]}")
    assert (missing[True], without_program[True]) == (0, 0)
    # The sandbox costs nothing here: of those that exit within 5 ms of their request three in a thousand had
    # gone, with its filters of system calls and without, as outside (tests/callers/test_ten_thousand.py). Two
    # in a hundred were in the midst of their exit: their socket was there still, their program not any more.
    alone = quiet and is_quiet()
    assert missing[False] <= (SHORT / 50 if alone else SHORT / 2)
    assert without_program[False] <= (SHORT / 20 if alone else SHORT / 2)


def test_a_service_is_named_with_its_unit_and_rules_know_its_program() -> None:
    rule = {
        "name": "billing does not read user-data",
        "caller": {"exe": "/usr/bin/curl", "unit": "billing.service"},
        "paths": ["user-data"],
        "allow": False,
        "enforcement": "enforce",
    }
    files = {"/etc/systemd/system/billing.service": BILLING, "/home/billing/read.py": SCRIPT}
    with unit_machine({"policy": {"rules": [rule]}}, files) as unit:
        unit.start()
        unit.machine.run("systemctl", "start", "billing.service")
        unit.said("setpriv", "--reuid=5002", "--clear-groups", "/home/billing/read.py")
        journal = unit.machine.journaled
        wait_for(lambda: sum(one["event"] == "legacy-caller" for one in journal(UNIT)) >= 2)
        callers = [one for one in journal(UNIT) if one["event"] == "legacy-caller"]
        refused = [one for one in journal(UNIT) if one["event"] == "refused"]
    named = {(one.get("uid"), one.get("exe"), one.get("unit"), one.get("script")) for one in callers}
    python = str(Path("/usr/bin/python3").resolve())
    assert named == {
        (1, "/usr/bin/curl", "billing.service", None),
        (5002, python, None, "/home/billing/read.py"),
    }
    assert [(one["uid"], one["slug"]) for one in refused] == [(1, "rule")], refused
