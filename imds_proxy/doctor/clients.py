"""Checks of running programs: known clients whose environment sends their calls elsewhere, or in vain.

Ties `clients` to the processes of this machine; knows nothing of the daemon, which never sees such calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.evidence import Evidence
from imds_proxy.clients.look import look
from imds_proxy.clients.rooted import Budget
from imds_proxy.clients.sight import Sight, take_sight
from imds_proxy.clients.switches import proxy_findings, switch_findings
from imds_proxy.clients.variables import PROXIES, V1_DISABLED, settings_of
from imds_proxy.doctor.finding import Finding

_SECONDS = 5.0
_MAX_SHOWN = 20
_SLUG = "clients"


def running_clients(proc: Path, seconds: float = _SECONDS) -> Iterator[Finding]:
    """A finding for each running program with a known client and a variable that misleads it; looks at
    those that have such a variable, for `seconds` at most."""
    until = time.monotonic() + seconds
    shown = hidden = 0
    pids = sorted((int(one.name) for one in proc.iterdir() if one.name.isdecimal()), reverse=True)
    for pid in pids:
        if time.monotonic() > until or shown >= _MAX_SHOWN:
            yield Finding(_SLUG, "unknown", "there are more running programs than were looked at")
            return
        sight = take_sight(pid, None, str(proc))
        if sight is None:
            hidden += 1
            continue
        with sight:
            for sentence in _misled(sight, until - time.monotonic()):
                shown += 1
                yield Finding(_SLUG, "warn", f"process {pid} ({sight.executable_path or '?'}): {sentence}")
    if not shown:
        some = f" ({hidden} may not be looked at)" if hidden else ""
        yield Finding(_SLUG, "ok", f"no running client of the service is misled by its environment{some}")


def _misled(sight: Sight, seconds: float) -> Iterator[str]:
    settings = settings_of(sight.environ())
    if not any(one.name in PROXIES or (one.name, one.value) != (V1_DISABLED, "true") for one in settings):
        return
    known = catalogue()
    evidence = look(sight, known, None, None, Budget(seconds=max(0.0, min(1.0, seconds))))
    if not evidence.found:
        return
    one = evidence.found[0]
    client = f"{one.name} {one.version or '(version not found)'} in {one.where}"
    evidence = Evidence(evidence.found, settings)
    for finding in (*proxy_findings(evidence, known), *switch_findings(evidence, ())):
        if finding.fix is not None:
            yield f"{client}: {finding.sentence}"
