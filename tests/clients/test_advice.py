"""What is said of a caller: a sentence that a developer can act on, and nothing that was not seen."""

from __future__ import annotations

import pytest

from imds_proxy.clients.advice import Verdict, judge
from imds_proxy.clients.catalogue import catalogue
from imds_proxy.clients.evidence import Evidence, Found
from imds_proxy.clients.usage import Call, Usage
from imds_proxy.clients.variables import settings_of
from imds_proxy.protocol.session import Session

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
GO = "Go-http-client/1.1"
PYTHON = "AlibabaCloud (Linux; x86_64) Python/3.11.7 Credentials/1.0.12 TeaDSL/1"


def verdict(
    agent: str | None,
    *found: Found,
    path: str = ROLE,
    session: Session = Session.LEGACY,
    cause: str = "",
    environ: str = "",
    missing: str | None = None,
    **usage: str,
) -> Verdict:
    evidence = Evidence(found, settings_of(environ.encode()), missing)
    return judge(catalogue(), Usage((Call(agent, path, session, cause),), **usage), evidence)


def pypi(name: str, version: str) -> Found:
    return Found("pypi", name, version, "/srv/app/venv")


def test_an_upgrade_comes_with_the_switch_without_which_it_still_falls_back() -> None:
    one = verdict("python-urllib3/2.0.7", pypi("alibabacloud-credentials", "0.3.2"))
    assert one.advice is not None
    assert one.advice.startswith(
        "alibabacloud-credentials 0.3.2 in /srv/app/venv: upgrade to >= 0.3.6 "
        "and set ALIBABA_CLOUD_IMDSV1_DISABLED=true"
    )
    assert (
        one.fix == "upgrade alibabacloud-credentials to >= 0.3.6 and set ALIBABA_CLOUD_IMDSV1_DISABLED=true"
    )
    assert one.credentials


def test_a_switch_that_is_set_already_is_to_be_kept() -> None:
    environ = "ALIBABA_CLOUD_IMDSV1_DISABLED=true"
    one = verdict("python-urllib3/2.0.7", pypi("alibabacloud-credentials", "0.3.2"), environ=environ)
    assert "upgrade to >= 0.3.6 (keep ALIBABA_CLOUD_IMDSV1_DISABLED=true)" in str(one.advice)


def test_a_release_that_only_has_to_be_told_is_told_of() -> None:
    one = verdict("python-urllib3/2.0.7", pypi("alibabacloud-credentials", "0.3.4"))
    assert "this release speaks it when told to: Config.enable_imds_v2=True" in str(one.advice)


@pytest.mark.parametrize(
    ("agent", "found", "said"),
    [
        ("Python-urllib/3.11", pypi("aliyun-python-sdk-core", "2.16.1"), "alibabacloud-credentials >= 0.3.6"),
        ("python-requests/2.32", pypi("oss2", "2.19.1"), "CredentialsProvider"),
        (
            GO,
            Found("go", "github.com/aliyun/alibaba-cloud-sdk-go", "v1.63.107", "/srv/app"),
            "NewECSRAMRoleCredentialsProviderBuilder",
        ),
        (
            "Java/17.0.15",
            Found("maven", "com.aliyun.oss:aliyun-sdk-oss", "3.18.4", "/srv/a.jar"),
            "credentials-java >= 0.3.10",
        ),
    ],
)
def test_where_the_newest_release_does_not_help_the_call_to_use_is_named(
    agent: str, found: Found, said: str
) -> None:
    one = verdict(agent, found)
    assert "no release speaks hardened mode here" in str(one.advice)
    assert said in str(one.advice)
    assert "upgrade to" not in str(one.advice)


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        ("token:status-503", "its token PUT failed because the service answered 503"),
        (
            "token:token-ttl",
            "its token PUT failed because it was refused: The token TTL header must be a whole number",
        ),
        ("token:left", "its token PUT failed because it did not wait for the answer"),
        ("hardened:status-404", "its GET with a token failed because the service answered 404"),
        (
            "hardened:token-invalid",
            "its GET with a token failed because it was refused: The token is invalid",
        ),
        ("", "its call for or with a token failed (why was not seen)"),
    ],
)
def test_a_fallback_needs_no_code_change_and_says_why_it_fell_back(cause: str, why: str) -> None:
    one = verdict(PYTHON, session=Session.FALLBACK, cause=cause)
    assert str(one.advice).startswith("alibabacloud-credentials 1.0.12: needs no code change; ")
    assert why in str(one.advice)
    assert one.fix is None


def test_a_release_that_repeats_refused_calls_is_said_to() -> None:
    assert "repeats every refused call without its token" in str(
        verdict(PYTHON, session=Session.FALLBACK).advice
    )


def test_a_modern_client_of_which_no_failure_was_seen_is_not_told_to_upgrade() -> None:
    one = verdict(PYTHON)
    assert "needs no code change" in str(one.advice)
    assert "upgrade" not in str(one.advice)


def test_a_script_gets_two_lines_for_its_own_path() -> None:
    one = verdict(
        "curl/7.88.1",
        path="/latest/meta-data/region-id",
        executable="/usr/bin/curl",
        shell_script="/etc/cron.hourly/tag",
    )
    lines = str(one.advice).splitlines()
    assert lines[0] == "curl 7.88.1 in /etc/cron.hourly/tag: fetch a token first and send it with the call:"
    assert lines[1].startswith("token=$(curl ")
    assert lines[2].endswith("http://100.100.100.200/latest/meta-data/region-id")
    assert one.fix == "fetch a token in scripts that call curl"


def test_code_of_its_own_is_told_what_to_do_before_its_call() -> None:
    one = verdict("Python-urllib/3.11", executable="/usr/bin/python3.11", script="/srv/job.py")
    assert str(one.advice).startswith(
        "code in /srv/job.py that uses Python-urllib 3.11: PUT /latest/api/token first"
    )


def test_code_that_could_not_be_looked_at_may_be_a_library() -> None:
    one = verdict("Python-urllib/3.11", executable="/usr/bin/python3.11", missing="it has ended")
    assert "code that uses Python-urllib 3.11 (or a library: it has ended): PUT" in str(one.advice)


@pytest.mark.parametrize(
    ("version", "upgrade"), [("22.4.2", True), ("23.1.2", True), ("23.2.2", False), ("24.4", False)]
)
def test_cloud_init_is_to_be_what_the_provider_asks_for(version: str, upgrade: bool) -> None:
    session = Session.LEGACY if version == "22.4.2" else Session.HARDENED
    one = verdict(f"Cloud-Init/{version}", path="/2016-01-01/user-data", session=session)
    assert ("upgrade to >= 23.2.2" in str(one.advice)) is upgrade
    assert one.client is not None and one.client.version == version


def test_windows_is_not_to_be_switched() -> None:
    agent = "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.17763.1007"
    assert "leave HttpTokens optional on Windows instances" in str(
        verdict(agent, path="/latest/meta-data/region-id").advice
    )


def test_a_probe_is_told_apart_from_what_reads_credentials() -> None:
    detector = Found("npm", "@opentelemetry/resource-detector-alibaba-cloud", "0.39.0", "/srv/app")
    one = verdict(None, detector, path="/latest/dynamic/instance-identity/document")
    assert not one.credentials
    assert "probe" in [finding.slug for finding in one.findings]
    assert "OTEL_NODE_RESOURCE_DETECTORS" in str(one.advice)


def test_a_program_whose_version_is_not_known_is_judged_by_what_it_holds() -> None:
    cli = Found("go_main", "github.com/aliyun/aliyun-cli", None, "/usr/local/bin/aliyun")
    old = verdict(GO, cli, Found("go", "github.com/aliyun/credentials-go", "v1.3.2", "/usr/local/bin/aliyun"))
    assert "aliyun CLI (version not found; it holds github.com/aliyun/credentials-go v1.3.2)" in str(
        old.advice
    )
    assert "upgrade to >= 3.0.225" in str(old.advice)
    new = verdict(GO, cli, Found("go", "github.com/aliyun/credentials-go", "v1.4.5", "/usr/local/bin/aliyun"))
    assert "upgrade" not in str(new.advice)


def test_of_two_that_send_the_same_both_are_named_and_neither_is_the_client() -> None:
    found = [
        Found("go", "github.com/aliyun/aliyun-log-go-sdk", "v0.1.1", "/srv/app"),
        Found("go", "github.com/aliyun/credentials-go", "v1.3.9", "/srv/app"),
    ]
    one = verdict(GO, *found)
    assert one.client is None
    assert "aliyun-log-go-sdk v0.1.1" in str(one.advice) and "credentials-go v1.3.9" in str(one.advice)


def test_parts_of_one_module_that_send_the_same_are_that_module() -> None:
    sdk = Found("go", "github.com/aliyun/alibaba-cloud-sdk-go", "v1.63.107", "/srv/app")
    one = verdict(GO, sdk, environ="ALIBABA_CLOUD_ECS_METADATA=role")
    assert one.client is not None and (one.client.name, one.client.version) == (sdk.name, sdk.version)
    assert "NewClientWithEcsRamRole" in str(one.advice) and "the default chain" in str(one.advice)
    fallen = verdict(GO, sdk, session=Session.FALLBACK, cause="token:status-503")
    assert fallen.client is not None and fallen.client.version == sdk.version
    assert fallen.advice == "needs no code change; its token PUT failed because the service answered 503"


def test_a_get_for_a_token_is_the_release_that_does_so() -> None:
    sdk = Found("npm", "@alicloud/credentials", "2.3.1", "/srv")
    assert "upgrade to >= 2.4.0" in str(verdict(None, sdk, path="/latest/api/token").advice)


def test_unknown_stays_unknown() -> None:
    one = verdict(None, executable="/srv/app", missing="the process ended before it could be looked at")
    assert one.client is None
    assert "is not known (the process ended" in str(one.advice)


def test_an_agent_of_which_nothing_is_known_gets_no_invented_release() -> None:
    one = verdict(None, Found("program", "argusagent", None, "/usr/local/cloudmonitor/bin/argusagent"))
    assert "the provider does not say" in str(one.advice)
    assert ">=" not in str(one.advice)


def test_switches_and_proxies_are_findings_of_their_own() -> None:
    one = verdict(
        PYTHON, session=Session.FALLBACK, environ="ALIBABA_CLOUD_IMDSV1_DISABLE=true\0HTTP_PROXY=http://p"
    )
    assert [finding.slug for finding in one.findings] == ["fallback", "misspelt", "http-proxy"]


def test_a_hardened_caller_that_needs_nothing_is_advised_nothing() -> None:
    one = verdict(PYTHON, session=Session.HARDENED)
    assert (one.advice, one.fix) == (None, None)
    assert one.client is not None
