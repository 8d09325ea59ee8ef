"""The demo's clients: real programs, each in an environment of its own, that read the role's credentials.

Knows how to install and call them; nothing of phases or of what is expected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

SERVICE = "100.100.100.200"
ROLE = "demo-role"
_ITEM = f"http://{SERVICE}/latest/meta-data/ram/security-credentials/{ROLE}"
_TOKEN_PATH = f"http://{SERVICE}/latest/api/token"

_CURL_V2 = f"""#!/bin/sh
ttl='X-aliyun-ecs-metadata-token-ttl-seconds: 180'
token=$(curl -sSf --max-time 5 "$@" -X PUT -H "$ttl" {_TOKEN_PATH}) || exit
exec curl -sSf --max-time 5 "$@" -H "X-aliyun-ecs-metadata-token: $token" {_ITEM}
"""
_URLLIB = f"""import sys, urllib.error, urllib.request
try:
    sys.stdout.write(urllib.request.urlopen("{_ITEM}", timeout=5).read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"HTTP {{error.code}}")
"""
_SDK = f"""import sys
from alibabacloud_credentials.client import Client
from alibabacloud_credentials.models import Config
try:
    print("AccessKeyId", Client(Config(type="ecs_ram_role", role_name="{ROLE}")).get_access_key_id())
except Exception as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}"[:200])
"""
# For a kernel without user namespaces: the SDK's fixed address, patched from outside.
_SITECUSTOMIZE = f"""import os, socket
place = os.environ.get("IMDS_PROXY_DEMO_SERVICE")
if place:
    host, _, port = place.rpartition(":")
    connect = socket.socket.connect
    def connect_there(self, address):
        if isinstance(address, tuple) and address[:2] == ("{SERVICE}", 80):
            address = (host, int(port))
        return connect(self, address)
    socket.socket.connect = connect_there
"""


class Missing(Exception):
    """Something that the demo needs is not on this machine; the text says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """`name` as shown; `command` to run; `hardened` says whether it speaks hardened mode itself."""

    name: str
    command: tuple[str, ...]
    hardened: bool


def scripts_in(cache: Path) -> Path:
    """Where the scripts stand: the same place each time, since a rule may name them."""
    return cache / "scripts"


def make_clients(cache: Path) -> tuple[Client, ...]:
    """Writes the scripts, builds what environments are missing in `cache`. Raises Missing, OSError."""
    curl = shutil.which("curl")
    if curl is None:
        raise Missing("curl is missing: apt-get install curl (or your system's way)")
    old = python_environment(cache / "sdk-0.3.2", ("alibabacloud-credentials==0.3.2", "setuptools<81"))
    new = python_environment(cache / "sdk-newest", ("alibabacloud-credentials>=1.0.12",))
    scripts = scripts_in(cache)
    scripts.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "curl-v2.sh": _CURL_V2,
        "read-role-with-urllib.py": _URLLIB,
        "read-role-with-old-sdk.py": _SDK,
        "read-role-with-new-sdk.py": _SDK,
        "sitecustomize.py": _SITECUSTOMIZE,
    }.items():
        (scripts / name).write_text(text, encoding="utf-8")
    return (
        Client("curl, normal mode", (curl, "-sSf", "--max-time", "5", _ITEM), False),
        Client("curl, hardened mode", ("/bin/sh", str(scripts / "curl-v2.sh")), True),
        Client("Python urllib script", (sys.executable, str(scripts / "read-role-with-urllib.py")), False),
        Client(
            f"alibabacloud-credentials {release(old)}",
            (str(old / "bin/python"), str(scripts / "read-role-with-old-sdk.py")),
            False,
        ),
        Client(
            f"alibabacloud-credentials {release(new)}",
            (str(new / "bin/python"), str(scripts / "read-role-with-new-sdk.py")),
            True,
        ),
    )


def client_environment(scripts: Path, place: str | None) -> dict[str, str]:
    """The environment of a client: no HTTP proxies, and the patched address where `place` is H:P."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    kept["PYTHONWARNINGS"] = "ignore"
    if place is not None:
        kept |= {"IMDS_PROXY_DEMO_SERVICE": place, "PYTHONPATH": str(scripts)}
    return kept


def call(client: Client, environment: dict[str, str], place: str | None) -> tuple[bool, str]:
    """Runs the client: whether it obtained something, and what it printed (first lines)."""
    command = client.command
    if place is not None and "curl" in " ".join(command):
        command = (*command, "--connect-to", f"{SERVICE}:80:{place}")
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "no answer within 60 s"
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()


def python_environment(directory: Path, packages: tuple[str, ...]) -> Path:
    """An environment of this Python in `directory`-pyX.Y with `packages`, built once. Raises Missing."""
    directory = directory.with_name(f"{directory.name}-py{sys.version_info[0]}.{sys.version_info[1]}")
    done = directory / "complete"
    if done.exists() and (directory / "bin/python").exists():
        return directory
    print(f"installing {packages[0]} into {directory} (once) …", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    try:
        venv.create(directory, with_pip=True)
        subprocess.run(
            [
                *(str(directory / "bin/python"), "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", *packages),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()[-1:]
        raise Missing(
            f"{packages[0]} could not be installed: {' '.join(said) or error}. A package index is needed "
            "(pip's own settings are used), and Python's venv module (apt-get install python3-venv)"
        ) from None
    done.touch()
    return directory


def release(directory: Path) -> str:
    """The release of alibabacloud-credentials in an environment, `?` where none is found."""
    # An old pip leaves NAME-VERSION-pyX.Y.egg-info.
    for found in directory.glob("lib/python*/site-packages/alibabacloud_credentials-*-info"):
        return found.name.split("-")[1].removesuffix(".dist")
    return "?"
