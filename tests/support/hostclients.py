"""A host's worth of real clients of the metadata service, and what must be said of each.

For the daemon and for passive observation alike: nothing here knows how the calls are watched.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from goprogram import GoModule, build_program
from imds_proxy.demo.clients import python_environment
from trees import pom

ROLE = "demo-role"
ITEM = f"/latest/meta-data/ram/security-credentials/{ROLE}"
SERVICE = "http://100.100.100.200"
SWITCH = "set ALIBABA_CLOUD_IMDSV1_DISABLED=true"
CLOUD_INIT = "22.4.2"  # Debian 12's

_SDK = """
import sys
from alibabacloud_credentials.client import Client
from alibabacloud_credentials.models import Config
print(Client(Config(type="ecs_ram_role", role_name=sys.argv[1])).get_access_key_id())
"""
_SDK_CORE = f"""
from aliyunsdkcore.auth.credentials import EcsRamRoleCredential
from aliyunsdkcore.auth.signers.ecs_ram_role_signer import EcsRamRoleSigner
signer = EcsRamRoleSigner(EcsRamRoleCredential("{ROLE}"))
signer._check_session_credential()
print(signer._session_credential[0])
"""
_NODE_SDK = f"""
const {{default: Credential, Config}} = require("@alicloud/credentials");
const client = new Credential(new Config({{type: "ecs_ram_role", roleName: "{ROLE}"}}));
client.getAccessKeyId().then(key => console.log(key));
"""
# The data source alone: all of cloud-init would configure the machine.
_CLOUD_INIT = """
import sys
from cloudinit import helpers
from cloudinit.sources import DataSourceAliYun
DataSourceAliYun._is_aliyun = lambda: True
paths = helpers.Paths({"cloud_dir": sys.argv[1], "run_dir": sys.argv[1]})
settings = {"datasource": {"AliYun": {"timeout": 5, "max_wait": 20}}}
source = DataSourceAliYun.DataSourceAliYun(settings, None, paths)
assert source.get_data()
print(source.metadata["instance-id"])
"""
_URLLIB = f"""
import urllib.request
print(urllib.request.urlopen("{SERVICE}/latest/meta-data/zone-id").read().decode())
"""
_SIGNER = f"""package signers

import (
	"io"
	"net/http"
)

// Get asks as the real signer does: one plain GET of a role, never the list.
func Get() string {{
	answer, err := http.Get("{SERVICE}{ITEM}")
	if err != nil {{
		panic(err)
	}}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}}
"""
_USES_SIGNER = """package main

import (
	"fmt"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/signers"
)

func main() {
	fmt.Println(signers.Get())
}
"""
_USES_ALIYUNGO = """package main

import (
	"fmt"

	"github.com/denverdino/aliyungo/metadata"
)

func main() {
	region, err := metadata.NewMetaData(nil).Region()
	if err != nil {
		panic(err)
	}
	fmt.Println(region)
}
"""
_JAVA = f"""
package app;
import java.net.URL;
public class Read {{
  public static void main(String[] words) throws Exception {{
    URL item = new URL("{SERVICE}{ITEM}");
    System.out.println(new String(item.openConnection().getInputStream().readAllBytes()));
  }}
}}
"""


@dataclass(frozen=True)
class HostClient:
    """A client and how to run it. `calls`: what it is called in a report, with its version (None: the
    report must not claim one) and place; `advice` are parts of what must be said of it, `never` parts that
    must not be."""

    label: str
    words: tuple[str, ...]
    name: str
    version: str | None
    where: str
    advice: tuple[str, ...]
    never: tuple[str, ...] = ()


def host_clients(cache: Path, place: Path, node_modules: Callable[[str], str]) -> Iterator[HostClient]:
    """The clients, their scripts below `place`; what takes long to make is kept in `cache`. `node_modules`
    gives the directory that holds a release of @alicloud/credentials."""
    yield _cron_curl(place)
    yield from _python_sdks(cache, place)
    yield from _node_sdks(place, node_modules)
    yield _cloud_init(cache, place)
    yield from _go_programs(cache, place)
    yield _java_program(place)


def _cron_curl(place: Path) -> HostClient:
    script = _script(
        place, "cron.hourly/zone", f"#!/bin/sh\ncurl -sSf {SERVICE}/latest/meta-data/zone-id\necho\n"
    )
    lines = (
        "fetch a token first and send it with the call:",
        "token=$(curl ",
        f"{SERVICE}/latest/meta-data/zone-id",
    )
    return HostClient("cron", ("/bin/sh", script), "curl", _curl_version(), script, lines, ("upgrade",))


def _python_sdks(cache: Path, place: Path) -> Iterator[HostClient]:
    sdk = _script(place, "sdk/read.py", _SDK)
    old = python_environment(cache / "sdk-0.3.2", ("alibabacloud-credentials==0.3.2", "setuptools<81"))
    new = python_environment(cache / "sdk-1.0.12", ("alibabacloud-credentials==1.0.12", "setuptools<81"))
    core = python_environment(cache / "sdk-core-2.16.1", ("aliyun-python-sdk-core==2.16.1", "setuptools<81"))
    name = "alibabacloud-credentials"
    upgrade = (f"{name} 0.3.2 in {old}: upgrade to >= 0.3.6 and {SWITCH}",)
    yield HostClient("old SDK", (f"{old}/bin/python", sdk, ROLE), name, "0.3.2", str(old), upgrade)
    # This release repeats a call that was answered 404 without its token.
    fallback = ("needs no code change", "its GET with a token failed because the service answered 404")
    words: tuple[str, ...] = (f"{new}/bin/python", _script(place, "sdk/no-role.py", _SDK), "no-such-role")
    yield HostClient("new SDK, fallen back", words, name, "1.0.12", str(new), fallback, ("upgrade to",))
    words = (f"{core}/bin/python", _script(place, "sdk/core.py", _SDK_CORE))
    instead = ("no release speaks hardened mode here", "alibabacloud-credentials >= 0.3.6")
    yield HostClient(
        "sdk-core", words, "aliyun-python-sdk-core", "2.16.1", str(core), instead, ("upgrade to",)
    )
    # The same environment, and code of its own: it is not the SDK that asks.
    script = _script(place, "sdk/own.py", _URLLIB)
    own = ("PUT /latest/api/token first", f"{SERVICE}/latest/meta-data/zone-id")
    words = (f"{core}/bin/python", script)
    yield HostClient(
        "urllib", words, "Python-urllib", _python_version(core), script, own, ("sdk-core", "upgrade")
    )


def _node_sdks(place: Path, node_modules: Callable[[str], str]) -> Iterator[HostClient]:
    modules = node_modules("2.2.6")
    where = str(Path(modules).parent)
    script = _script(place, "node/main.js", _NODE_SDK)
    words = ("env", f"NODE_PATH={modules}", "node", script)
    advice = (f"@alicloud/credentials 2.2.6 in {where}: upgrade to >= 2.4.0 and {SWITCH}",)
    yield HostClient("node SDK", words, "@alicloud/credentials", "2.2.6", where, advice)


def _cloud_init(cache: Path, place: Path) -> HostClient:
    packages = ("configobj", "requests", "jinja2", "oauthlib", "jsonpatch", "jsonschema", "PyYAML")
    python = python_environment(cache / "cloud-init-needs", packages)
    library = f"{debian_package(cache, 'cloud-init')}/usr/lib/python3/dist-packages"
    script = _script(place, "boot/data-source.py", _CLOUD_INIT)
    words = ("env", f"PYTHONPATH={library}", f"{python}/bin/python", script, str(place / "boot/state"))
    advice = (f"cloud-init {CLOUD_INIT} in {library}: upgrade to >= 23.2.2",)
    return HostClient("cloud-init", words, "cloud-init", CLOUD_INIT, library, advice)


def _go_programs(cache: Path, place: Path) -> Iterator[HostClient]:
    sdk = GoModule(
        "github.com/aliyun/alibaba-cloud-sdk-go", "v1.63.107", {"sdk/auth/signers/signer.go": _SIGNER}
    )
    path = str(build_program(place / "go-signer", "example.com/signer", _USES_SIGNER, [sdk]))
    instead = ("no release speaks hardened mode here", "NewECSRAMRoleCredentialsProviderBuilder")
    yield HostClient("Go signer", (path,), sdk.path, "v1.63.107", path, instead, ("upgrade to",))

    unpacked = debian_package(cache, "golang-github-denverdino-aliyungo-dev")
    source = unpacked / "usr/share/gocode/src/github.com/denverdino/aliyungo"
    files = {
        str(path.relative_to(source)): path.read_text()
        for directory in ("metadata", "util")
        for path in sorted((source / directory).glob("*.go"))
        if not path.name.endswith("_test.go")
    }
    library = GoModule("github.com/denverdino/aliyungo", "v0.0.0-20180921000000-13fa8aa00000", files)
    path = str(build_program(place / "go-aliyungo", "example.com/region", _USES_ALIYUNGO, [library]))
    instead = ("no release speaks hardened mode here", "ack-ram-tool/pkg/ecsmetadata")
    yield HostClient("Go aliyungo", (path,), library.path, library.version, path, instead, ("upgrade to",))


def _java_program(place: Path) -> HostClient:
    """A library's jar as Maven makes it, and the program in it: no registry of Maven's is needed."""
    classes = place / "java/classes"
    _script(place, "java/Read.java", _JAVA)
    for name, text in pom("com.aliyun", "aliyun-java-sdk-core", "4.6.0").items():
        _script(classes, name, str(text))
    subprocess.run(["javac", "-d", str(classes), str(place / "java/Read.java")], check=True, timeout=120)
    jar = str(place / "java/aliyun-java-sdk-core-4.6.0.jar")
    subprocess.run(["jar", "--create", "--file", jar, "-C", str(classes), "."], check=True, timeout=120)
    name = "com.aliyun:aliyun-java-sdk-core"
    advice = (f"{name} 4.6.0 in {jar}: upgrade to >= 4.7.3 and {SWITCH}",)
    return HostClient("Java", ("java", "-cp", jar, "app.Read"), name, "4.6.0", jar, advice)


def debian_package(cache: Path, name: str) -> Path:
    """The files of a Debian package, unpacked once and not installed."""
    place = cache / f"deb-{name}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        words = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{name} cannot be had (apt-get update?): {done.stderr}"
        (package,) = place.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(place)], check=True, timeout=120)
        (place / "complete").touch()
    return place


def _script(place: Path, name: str, text: str) -> str:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def _curl_version() -> str:
    done = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def _python_version(environment: Path) -> str:
    words = [f"{environment}/bin/python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
