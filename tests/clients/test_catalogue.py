from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from imds_proxy.clients.catalogue import Span, catalogue, parse_catalogue
from imds_proxy.clients.versions import Version

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
ENTRY: dict[str, Any] = {
    "id": "one",
    "name": "One",
    "kind": "credentials",
    "status": "v1_only",
    "find": {"pypi": ["one"]},
    "requests": [{"agents": ["one/*"], "paths": ["role"]}],
    "instead": "use two",
    "source": ["https://example.com/one"],
    "confidence": "source",
    "checked": "2026-11",
}
ACK = {"source": "https://example.com/ack", "checked": "2026-11", "minimum": {"terway": "1.14.0"}}


def parse(**changes: Any) -> Any:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return parse_catalogue({"tools": [entry], "ack_components": ACK})


def test_the_shipped_file_keeps_its_schema_and_every_fact_has_a_source() -> None:
    tools = catalogue().tools
    assert len(tools) > 70
    assert all(one.source and one.checked and one.requests for one in tools)


def test_no_release_is_advised_that_falls_short_of_hardened_mode_by_default() -> None:
    for tool in catalogue().tools:
        if tool.upgrade_to is not None:
            assert tool.default_since is not None, tool.id
            assert tool.upgrade_to >= tool.default_since, tool.id
        if tool.supports_since is not None and tool.default_since is not None:
            assert tool.supports_since <= tool.default_since, tool.id


def test_a_release_that_falls_back_comes_with_the_switch_that_stops_it_or_says_that_there_is_none() -> None:
    for tool in catalogue().tools:
        if tool.status == "v2_default" and not tool.id.startswith("ack-"):
            switch = tool.disable_v1
            assert switch is not None, tool.id
            assert switch.env or switch.param or switch.note, tool.id


@pytest.mark.parametrize(
    ("tool", "supports", "default", "advised"),
    [
        ("python-credentials", "0.3.3", "0.3.6", "0.3.6"),
        ("node-credentials", "2.4.0", "2.4.0", "2.4.0"),
        ("go-credentials", "1.3.4", "1.3.10", "1.3.10"),
        ("java-credentials", "0.3.1", "0.3.8", "0.3.10"),
        ("cloud-init", "23.1", "23.1", "23.2.2"),
        ("aliyun-cli", "3.0.225", "3.0.225", "3.0.225"),
    ],
)
def test_the_facts_that_most_advice_rests_on(tool: str, supports: str, default: str, advised: str) -> None:
    one = catalogue().get(tool)
    found = (one.supports_since, one.default_since, one.upgrade_to)
    assert found == tuple(map(Version.parse, (supports, default, advised)))


@pytest.mark.parametrize(
    "tool", ["python-sdk-core", "python-oss2", "node-otel", "go-sdk-signer", "java-oss", "ossutil", "datadog"]
)
def test_where_no_release_helps_none_is_advised(tool: str) -> None:
    one = catalogue().get(tool)
    assert one.upgrade_to is None
    assert one.instead


def test_the_catalogue_is_not_read_before_it_is_asked_for() -> None:
    program = (
        "import sys, imds_proxy.server.build, imds_proxy.clients.look;"
        "from imds_proxy.clients.catalogue import catalogue; print(catalogue.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "sdk"}, "one: kind: 'sdk' is none of"),
        ({"status": "v2"}, "one: status"),
        ({"confidence": "sure"}, "one: confidence"),
        ({"supports_since": 1.2}, "one: supports_since: 1.2 is no version"),
        ({"upgrade_to": "soon"}, "one: upgrade_to: 'soon' is no version"),
        ({"source": []}, "one: source: one link or more"),
        ({"source": ["a page"]}, "one: source"),
        ({"instead": None}, "one: instead"),
        ({"find": None}, "one: neither `find` nor `agent`"),
        ({"find": {"cargo": ["x"]}}, "one: "),
        ({"find": {"pypi": "one"}}, "one: 'one' is no list"),
        ({"requests": [{"agents": ["a"], "paths": ["credentials"]}]}, "one: paths: 'credentials' is none of"),
        ({"status": "v2_default"}, "one: supports_since"),
        ({"status": "v2_default", "supports_since": "1", "default_since": "1"}, "one: disable_v1"),
        ({"status": "unknown"}, "one: note"),
        ({"through": "two"}, "one: through: no such tool"),
        ({"colour": "red"}, "one: "),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_entry(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="one: ") as caught:
        parse(**changes)
    assert str(caught.value).startswith(said)


def test_an_id_stands_there_once() -> None:
    with pytest.raises(ValueError, match="one: stands there twice"):
        parse_catalogue({"tools": [ENTRY, ENTRY], "ack_components": ACK})


@pytest.mark.parametrize("document", [None, [], {"tools": []}])
def test_a_document_of_another_form_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="mapping of `tools` and `ack_components`"):
        parse_catalogue(document)


@pytest.mark.parametrize(
    ("agent", "tool", "version"),
    [
        (
            "AlibabaCloud (Linux; x86_64) Python/3.11.7 Credentials/0.3.6 TeaDSL/1",
            "python-credentials",
            "0.3.6",
        ),
        ("AlibabaCloud (linux; amd64) Golang/1.24 Credentials/1.4.8 TeaDSL/1", "go-credentials", "1.4.8"),
        ("AlibabaCloud (Linux; amd64) Java/17 Credentials/1.0.6 TeaDSL/1", "java-credentials", "1.0.6"),
        ("Cloud-Init/22.4.2", "cloud-init", "22.4.2"),
        (
            "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.17763.1007",
            "windows",
            "5.1.17763.1007",
        ),
    ],
)
def test_a_user_agent_of_its_own_names_a_tool_and_its_release(agent: str, tool: str, version: str) -> None:
    named = {one.id: one.version_in(agent) for one in catalogue().tools if one.version_in(agent)}
    assert named == {tool: version}


@pytest.mark.parametrize("agent", ["", "curl/7.88.1", "Cloud-Init/", "Cloud-Init/1 2", "AlibabaCloud " * 20])
def test_other_user_agents_name_none(agent: str) -> None:
    assert not any(one.version_in(agent) for one in catalogue().tools)


def test_releases_of_one_tool_differ_in_what_they_send() -> None:
    tool = catalogue().get("python-credentials")
    assert tool.fits(Version.parse("0.3.2"), "python-urllib3/2.0.7", ROLE)
    assert tool.fits(Version.parse("0.3.2"), None, ROLE)
    assert not tool.fits(Version.parse("1.0.12"), "python-urllib3/2.0.7", ROLE)
    assert not tool.fits(Version.parse("0.3.2"), "python-urllib3/2.0.7", "/latest/meta-data/instance-id")
    assert not tool.fits(Version.parse("0.3.2"), "curl/7.88.1", ROLE)


def test_a_span_has_its_first_release_and_not_its_last() -> None:
    span = Span(Version.parse("1.0"), Version.parse("2.0"))
    held = [span.holds(Version.parse(text)) for text in ("0.9", "1.0", "1.9", "2.0")]
    assert held == [False, True, True, False]
    assert span.holds(None)


def test_ack_components_are_found_by_their_image() -> None:
    (terway,) = catalogue().found_as("image", "acs/terway")
    assert terway.upgrade_to == Version.parse("1.14.0")


def test_an_unknown_id_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        catalogue().get("no-such-tool")
