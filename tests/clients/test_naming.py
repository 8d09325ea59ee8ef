"""A client is named where its files and its requests agree, and never by a guess."""

from __future__ import annotations

import pytest

from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.evidence import Evidence, Found, Setting
from imds_proxy.clients.naming import Named, Naming, is_command, name_clients
from imds_proxy.clients.usage import Call, Usage
from imds_proxy.protocol.session import Session

ROLES = "/latest/meta-data/ram/security-credentials/"
ROLE = f"{ROLES}demo-role"
RAM = "/latest/meta-data/Ram/security-credentials/demo-role"
ITEM = "/latest/meta-data/instance-id"
URLLIB3, URLLIB, REQUESTS = "python-urllib3/2.0.7", "Python-urllib/3.11", "python-requests/2.32"
GO = "Go-http-client/1.1"
OLD = Found("pypi", "alibabacloud-credentials", "0.3.2", "/srv/venv")
NEW = Found("pypi", "alibabacloud-credentials", "1.0.12", "/srv/venv")
CORE = Found("pypi", "aliyun-python-sdk-core", "2.16.1", "/srv/venv")
OSS2 = Found("pypi", "oss2", "2.19.1", "/srv/venv")
LOG_CLI = Found("pypi", "aliyun-log-cli", "0.2.10", "/srv/venv")
NODE_OLD = Found("npm", "@alicloud/credentials", "2.2.6", "/srv")
NODE_NEW = Found("npm", "@alicloud/credentials", "2.4.7", "/srv")


def go(name: str, version: str | None) -> Found:
    return Found("go", f"github.com/{name}", version, "/srv/app")


def naming(
    *calls: tuple[str | None, str],
    found: tuple[Found, ...] = (),
    session: Session = Session.LEGACY,
    **usage: str,
) -> Naming:
    each = tuple(Call(agent, path, session) for agent, path in calls)
    return name_clients(catalogue(), Usage(each, **usage), Evidence(found))


def named(*calls: tuple[str | None, str], **given: object) -> list[tuple[str, str | None]]:
    return [(one.name, one.version) for one, _ in naming(*calls, **given).sent]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "found", "client"),
    [
        ((URLLIB3, ROLE), (OLD,), ("alibabacloud-credentials", "0.3.2")),
        ((None, ROLE), (OLD,), ("alibabacloud-credentials", "0.3.2")),
        ((URLLIB, ROLE), (CORE, NEW), ("aliyun-python-sdk-core", "2.16.1")),
        ((REQUESTS, ROLE), (OSS2, CORE), ("oss2", "2.19.1")),
        ((REQUESTS, RAM), (LOG_CLI, OSS2), ("aliyun-log-cli", "0.2.10")),
        ((None, ROLE), (NODE_OLD,), ("@alicloud/credentials", "2.2.6")),
        (
            (GO, ROLE),
            (go("aliyun/alibaba-cloud-sdk-go", "v1.63.107"),),
            ("github.com/aliyun/alibaba-cloud-sdk-go", "v1.63.107"),
        ),
        ((GO, ITEM), (go("denverdino/aliyungo", "v0.1.0"),), ("github.com/denverdino/aliyungo", "v0.1.0")),
    ],
)
def test_an_installed_client_that_sends_such_requests_is_named(
    call: tuple[str | None, str], found: tuple[Found, ...], client: tuple[str, str]
) -> None:
    assert named(call, found=found) == [client]


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ((URLLIB3, ROLE), (NEW,)),  # this release says its name
        ((URLLIB3, ITEM), (OLD,)),  # it reads nothing else
        ((URLLIB, ITEM), (CORE,)),
        ((URLLIB, ROLES), (CORE,)),  # it never lists
        ((GO, ITEM), (go("aliyun/credentials-go", "v1.3.9"),)),
    ],
)
def test_one_that_does_not_is_not(call: tuple[str | None, str], found: tuple[Found, ...]) -> None:
    ((client, _),) = naming(call, found=found).sent
    assert client.tool is None


def test_a_release_that_asks_for_a_token_first_did_not_send_a_plain_call() -> None:
    assert named((None, ROLE), found=(NODE_NEW,)) == []
    assert naming((None, ROLE), found=(NODE_NEW,)).unnamed
    assert named((None, ROLE), found=(NODE_NEW,), session=Session.FALLBACK) == [
        ("@alicloud/credentials", "2.4.7")
    ]


def test_a_release_that_cannot_ask_for_a_token_did_not_fall_back() -> None:
    assert named((None, ROLE), found=(NODE_OLD,), session=Session.FALLBACK) == []


def test_a_user_agent_of_its_own_is_enough() -> None:
    agent = "AlibabaCloud (Linux; x86_64) Python/3.11.7 Credentials/1.0.12 TeaDSL/1"
    assert named((agent, ROLE)) == [("alibabacloud-credentials", "1.0.12")]
    assert named(("Cloud-Init/22.4.2", "/2016-01-01/meta-data/instance-id")) == [("cloud-init", "22.4.2")]
    ((client, _),) = naming((agent, ROLE), found=(NEW,)).sent
    assert client.where == "/srv/venv"


class TestOneModuleWithSeveralCodePaths:
    """alibaba-cloud-sdk-go: told apart by the shape of its requests."""

    def part(self, version: str, *paths: str, session: Session = Session.LEGACY) -> list[str | None]:
        found = (go("aliyun/alibaba-cloud-sdk-go", version),)
        done = naming(*((GO, path) for path in paths), found=found, session=session)
        return [client.tool.id for client, _ in done.sent if client.tool]

    def test_the_signer_reads_a_role_and_never_lists(self) -> None:
        assert self.part("v1.63.107", ROLE) == ["go-sdk-signer"]
        assert self.part("v1.61.1", ROLE) == ["go-sdk-signer"]

    def test_the_provider_of_before_1_63_89_lists_first(self) -> None:
        assert self.part("v1.63.84", ROLES, ROLE) == ["go-sdk-instance-metadata"]

    def test_a_newer_provider_that_fell_back_has_asked_for_a_token(self) -> None:
        found = (go("aliyun/alibaba-cloud-sdk-go", "v1.63.107"),)
        done = naming((GO, ROLE), found=found, session=Session.FALLBACK)
        ((_, senders),) = done.choices
        parts = {one.tool.id for one in senders if one.tool}
        assert parts == {"go-sdk-credentials-provider", "go-sdk-instance-metadata"}
        assert self.part("v1.63.60", ROLE, session=Session.FALLBACK) == ["go-sdk-credentials-provider"]

    def test_the_default_chain_calls_where_a_variable_names_the_role(self) -> None:
        found = (go("aliyun/alibaba-cloud-sdk-go", "v1.63.107"),)
        usage = Usage((Call(GO, ROLE, Session.LEGACY),))
        told = Evidence(found, (Setting("ALIBABA_CLOUD_ECS_METADATA", "set"),))
        ((_, senders),) = name_clients(catalogue(), usage, told).choices
        assert {one.tool.id for one in senders if one.tool} == {"go-sdk-signer", "go-sdk-provider-instance"}

    def test_a_newer_one_that_lists_without_a_token_is_none_of_them(self) -> None:
        assert self.part("v1.63.107", ROLES, ROLE) == []


def test_where_two_send_the_same_neither_is_named() -> None:
    found = (go("aliyun/aliyun-log-go-sdk", "v0.1.1"), go("aliyun/credentials-go", "v1.3.9"))
    done = naming((GO, ROLE), found=found)
    assert done.sent == ()
    assert {one.name for _, senders in done.choices for one in senders} == {
        "github.com/aliyun/aliyun-log-go-sdk",
        "github.com/aliyun/credentials-go",
    }


def test_a_second_call_settles_which() -> None:
    done = naming((REQUESTS, ROLE), (URLLIB3, ROLE), found=(OLD, OSS2))
    assert [(client.name, len(calls)) for client, calls in done.sent] == [("alibabacloud-credentials", 2)]


def test_a_program_is_named_before_the_library_in_it() -> None:
    found = (
        Found("go_main", "github.com/aliyun/aliyun-cli", None, "/usr/local/bin/aliyun"),
        Found("program", "aliyun", None, "/usr/local/bin/aliyun"),
        go("aliyun/credentials-go", "v1.3.2"),
    )
    ((client, _),) = naming((GO, ROLE), found=found).sent
    assert (client.name, client.version) == ("aliyun CLI", None)
    assert client.through and client.through.version == "v1.3.2"


def test_the_package_manager_knows_a_program_s_version() -> None:
    found = (Found("program", "ossfs", None, "/usr/bin/ossfs"), Found("package", "ossfs", "1.91.6", "dpkg"))
    assert named((None, ROLE), found=found) == [("ossfs", "1.91.6")]


def test_ack_ram_tool_speaks_normal_mode_where_it_is_told_to() -> None:
    found = (go("AliyunContainerService/ack-ram-tool/pkg/ecsmetadata", "v0.0.10"),)
    usage = Usage((Call("app linux/amd64 go1.22", ROLE, Session.LEGACY),))
    told = Evidence(found, (Setting("ALIBABA_CLOUD_IMDSV2_DISABLED", "true"),))
    assert name_clients(catalogue(), usage, told).sent[0][0].name.endswith("ack-ram-tool")
    assert name_clients(catalogue(), usage, Evidence(found)).sent[0][0].tool is None


@pytest.mark.parametrize(
    ("agent", "client"),
    [("curl/7.88.1", ("curl", "7.88.1")), ("Wget", ("Wget", None)), (URLLIB, ("Python-urllib", "3.11"))],
)
def test_what_is_not_in_the_catalogue_is_called_what_it_calls_itself(
    agent: str, client: tuple[str, str | None]
) -> None:
    assert named((agent, ROLE)) == [client]


@pytest.mark.parametrize("agent", [None, "", "\x1b[31mcurl/1", "(none)", "x" * 300])
def test_what_says_nothing_usable_stays_unknown(agent: str | None) -> None:
    done = naming((agent, ROLE))
    assert done.sent == ()
    assert len(done.unnamed) == 1


def test_a_plain_call_is_in_the_script_that_makes_it() -> None:
    ((client, _),) = naming(
        ("curl/8", ROLE), executable="/usr/bin/curl", shell_script="/etc/cron.hourly/x"
    ).sent
    assert client.where == "/etc/cron.hourly/x"
    assert is_command(client, Usage((), "/usr/bin/curl"))
    assert not is_command(Named("Python-urllib", "3.11", None), Usage((), "/usr/bin/python3.11"))


def test_clients_of_the_catalogue_come_first_and_those_that_read_credentials_before_others() -> None:
    detector = Found("npm", "@opentelemetry/resource-detector-alibaba-cloud", "0.39.0", "/srv")
    calls = [("curl/8", ROLE), (None, "/latest/meta-data/hostname"), (None, ROLE)]
    names = [name for name, _ in named(*calls, found=(detector, NODE_OLD))]
    assert names == ["@alicloud/credentials", "@opentelemetry/resource-detector-alibaba-cloud", "curl"]
