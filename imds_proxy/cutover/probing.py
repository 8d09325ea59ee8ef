"""What the real service answers now, to a plain GET and to one with a token: through the daemon where one
runs (a call of ours would only meet the redirect), else directly; or on another machine, by a command.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from imds_proxy.cutover.steps import Instance, Probe
from imds_proxy.protocol.profile import Profile
from imds_proxy.server.admin import ask

_PATIENCE = 2.0  # seconds for each call
_COMMAND_PATIENCE = 60.0
_TTL = b"60"

Prober = Callable[[Instance], Probe]


def probe_here(admin: Path, host: str, port: int, profile: Profile) -> Probe:
    """This machine's service. Never raises: what cannot be asked is None."""
    try:
        answer = ask(admin, "probe")
    except (OSError, ValueError):
        return probe_directly(host, port, profile)
    return _probe_of(answer)


def probe_directly(host: str, port: int, profile: Profile) -> Probe:
    """Without a daemon."""
    path = profile.instance_id_path
    token_header, ttl_header = profile.token_header.decode(), profile.ttl_header.decode()
    v1, _ = _call(host, port, "GET", path, {})
    status, token = _call(host, port, "PUT", profile.token_path, {ttl_header: _TTL.decode()})
    v2 = status
    if status == 200:
        v2, _ = _call(host, port, "GET", path, {token_header: token.decode("latin-1").strip()})
    return Probe(v1, v2)


def probe_by_command(words: str, instance: Instance) -> Probe:
    """What `imds-proxy probe --json` says on another machine, reached by a command of the user's: it finds
    INSTANCE_ID and PRIVATE_IP in its environment."""
    environment = {**os.environ, "INSTANCE_ID": instance.id, "PRIVATE_IP": instance.private_ip or ""}
    try:
        done = subprocess.run(  # noqa: S602  (the user's own command)
            words, shell=True, env=environment, capture_output=True, text=True, timeout=_COMMAND_PATIENCE
        )
        return _probe_of(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return Probe(None, None)


def _probe_of(answer: object) -> Probe:
    found = answer if isinstance(answer, dict) else {}
    numbers = [found.get(name) for name in ("v1", "v2", "failed")]
    v1, v2, failed = (one if type(one) is int else None for one in numbers)
    return Probe(v1, v2, failed or 0)


def _call(host: str, port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int | None, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(4096)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
