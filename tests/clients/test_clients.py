"""Old and new clients obtain the right values, and the log knows in which mode each spoke."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Lab

pytestmark = [pytest.mark.clients, pytest.mark.root]
BASE = "http://100.100.100.200/latest"
ROLE = f"{BASE}/meta-data/ram/security-credentials/demo-role"
ITEM = "/latest/meta-data/ram/security-credentials/demo-role"
TTL = "X-aliyun-ecs-metadata-token-ttl-seconds: 600"

CURL_V2 = """
token=$(curl -sSf {put} -H '{ttl}' {base}/api/token)
curl -sSf -H "X-aliyun-ecs-metadata-token: $token" {role}
"""
DEV_TCP = r"""
exec 3<>/dev/tcp/100.100.100.200/80
printf 'GET {item} HTTP/1.0{end}{end}' >&3
cat <&3
"""
WGET_V2 = """
token=$(wget -qO- --method=PUT --header '{ttl}' {base}/api/token)
wget -qO- --header "X-aliyun-ecs-metadata-token: $token" {role}
"""
URLLIB_V2 = f"""
import urllib.request as u
put = u.Request("{BASE}/api/token", method="PUT", headers=dict(["{TTL}".split(": ")]))
token = u.urlopen(put).read().decode()
print(u.urlopen(u.Request("{ROLE}", headers={{"X-aliyun-ecs-metadata-token": token}})).read().decode())
"""
NODE_V2 = f"""
const headers = Object.fromEntries([{TTL.split(": ")}]);
fetch("{BASE}/api/token", {{method: "PUT", headers}}).then(r => r.text()).then(token =>
  fetch("{ROLE}", {{headers: {{"X-aliyun-ecs-metadata-token": token}}}}))
    .then(r => r.text()).then(console.log);
"""
JAVA = """
import java.io.*; import java.net.*; import java.net.http.*; import java.net.http.HttpResponse.BodyHandlers;
public class Read {
  public static void main(String[] mode) throws Exception {
    if (mode[0].equals("old")) {
      InputStream in = new URL("ROLE").openConnection().getInputStream();
      System.out.println(new String(in.readAllBytes()));
      return;
    }
    HttpClient client = HttpClient.newHttpClient();
    HttpRequest.Builder get = HttpRequest.newBuilder(URI.create("ROLE"));
    if (mode[0].equals("v2")) {
      HttpRequest put = HttpRequest.newBuilder(URI.create("BASE/api/token"))
        .header("X-aliyun-ecs-metadata-token-ttl-seconds", "600")
        .PUT(HttpRequest.BodyPublishers.noBody()).build();
      get.header("X-aliyun-ecs-metadata-token", client.send(put, BodyHandlers.ofString()).body());
    }
    System.out.println(client.send(get.build(), BodyHandlers.ofString()).body());
  }
}
""".replace("ROLE", ROLE).replace("BASE", BASE)
PYTHON_SDK = """
import sys
from alibabacloud_credentials.client import Client
from alibabacloud_credentials.models import Config
options = {name: True for name in sys.argv[1:]}
print(Client(Config(type="ecs_ram_role", role_name="demo-role", **options)).get_access_key_id())
"""
NODE_SDK = """
const {default: Credential, Config} = require("@alicloud/credentials");
const client = new Credential(new Config({type: "ecs_ram_role", roleName: "demo-role"}));
client.getAccessKeyId().then(key => console.log(key));
"""


@dataclass(frozen=True)
class Case:
    """How to run a client (given the fixtures), and what kinds of sessions the log must count."""

    words: Callable[[Any, Path], tuple[str, ...]]
    sessions: dict[str, int]


def sh(script: str, **names: str) -> Callable[[Any, Path], tuple[str, ...]]:
    filled = script
    for name, text in {"base": BASE, "role": ROLE, "item": ITEM, "ttl": TTL, **names}.items():
        filled = filled.replace("{" + name + "}", text)
    return lambda _, __: ("bash", "-euc", filled)


def words(*fixed: str) -> Callable[[Any, Path], tuple[str, ...]]:
    return lambda _, __: fixed


def java(mode: str) -> Callable[[Any, Path], tuple[str, ...]]:
    def written(_: Any, place: Path) -> tuple[str, ...]:
        (place / "Read.java").write_text(JAVA)
        return ("java", str(place / "Read.java"), mode)

    return written


def node_sdk(release: str) -> Callable[[Any, Path], tuple[str, ...]]:
    return lambda sdks, _: ("env", f"NODE_PATH={sdks.node(release)}", "node", "-e", NODE_SDK)


def python_sdk(release: str, *options: str) -> Callable[[Any, Path], tuple[str, ...]]:
    return lambda sdks, _: (sdks.python(release), "-c", PYTHON_SDK, *options)


LEGACY = {"legacy": 1}
HARDENED = {"token": 1, "hardened": 1}
CASES = {
    "curl": Case(words("curl", "-sSf", ROLE), LEGACY),
    "curl, HTTP/1.0": Case(words("curl", "-sSf", "--http1.0", ROLE), LEGACY),
    "curl, empty token": Case(words("curl", "-sSf", "-H", "X-aliyun-ecs-metadata-token;", ROLE), LEGACY),
    "curl, -X PUT": Case(sh(CURL_V2, put="-X PUT"), HARDENED),
    "curl, -T /dev/null": Case(sh(CURL_V2, put="-T /dev/null"), HARDENED),
    "wget": Case(words("wget", "-qO-", ROLE), LEGACY),
    "wget, hardened": Case(sh(WGET_V2), HARDENED),
    "bash /dev/tcp": Case(sh(DEV_TCP, end=r"\r\n"), LEGACY),
    "bash /dev/tcp, bare LF": Case(sh(DEV_TCP, end=r"\n"), LEGACY),
    "urllib": Case(
        words("python3", "-c", f"import urllib.request as u; print(u.urlopen('{ROLE}').read())"), LEGACY
    ),
    "urllib, hardened": Case(words("python3", "-c", URLLIB_V2), HARDENED),
    "requests": Case(
        lambda sdks, _: (sdks.python("1.0.12"), "-c", f"import requests as r; print(r.get('{ROLE}').text)"),
        LEGACY,
    ),
    "node http": Case(
        words("node", "-e", f"require('http').get('{ROLE}', r => r.on('data', d => console.log(String(d))))"),
        LEGACY,
    ),
    "node fetch": Case(words("node", "-e", f"fetch('{ROLE}').then(r => r.text()).then(console.log)"), LEGACY),
    "node fetch, hardened": Case(words("node", "-e", NODE_V2), HARDENED),
    "java HttpURLConnection": Case(java("old"), LEGACY),
    "java HttpClient": Case(java("v1"), LEGACY),
    "java HttpClient, hardened": Case(java("v2"), HARDENED),
    "alibabacloud-credentials 0.3.2": Case(python_sdk("0.3.2"), LEGACY),
    "alibabacloud-credentials 0.3.3": Case(python_sdk("0.3.3"), LEGACY),
    "alibabacloud-credentials 0.3.3, enabled": Case(python_sdk("0.3.3", "enable_imds_v2"), HARDENED),
    "alibabacloud-credentials 0.3.6": Case(python_sdk("0.3.6"), HARDENED),
    "alibabacloud-credentials 1.0.12": Case(python_sdk("1.0.12"), HARDENED),
    "@alicloud/credentials 2.2.6": Case(node_sdk("2.2.6"), LEGACY),
    "@alicloud/credentials 2.4.0": Case(node_sdk("2.4.0"), HARDENED),
    "@alicloud/credentials 2.4.7": Case(node_sdk("2.4.7"), HARDENED),
}


@pytest.mark.parametrize("name", CASES)
def test_a_client_obtains_the_right_value_and_is_named_for_what_it_spoke(
    lab: Lab, access_key: str, sdks: Any, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    command = case.words(sdks, tmp_path)
    assert shutil.which(command[0]), f"{command[0]} is missing: see packaging/system-packages.sh"
    with lab.proxy() as sessions:
        done = lab.run(*command)
    assert access_key in done.stdout, done.stderr
    assert dict(sessions.kinds) == case.sessions


@pytest.mark.parametrize("name", ["curl", "wget", "urllib", "alibabacloud-credentials 0.3.2"])
def test_in_passthrough_the_service_refuses_the_old_ones(
    lab: Lab, access_key: str, sdks: Any, tmp_path: Path, name: str
) -> None:
    """So what the others obtained was the proxy's doing."""
    with lab.proxy(mode="passthrough"):
        done = lab.run(*CASES[name].words(sdks, tmp_path))
    assert access_key not in done.stdout
