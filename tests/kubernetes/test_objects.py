"""Pods as values: what is of another shape is no pod, and never an error of ours."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.kubernetes.objects import PodEvent, read_event, read_page, read_pod
from kube_api import pod_object

ID = "0123456789abcdef" * 4


def test_a_pod_has_name_namespace_account_labels_addresses_and_containers() -> None:
    item = pod_object(
        *("web-1", "uid-1", "10.0.0.9"),
        namespace="team-a",
        labels={"app": "web"},
        account="web",
        containers={ID: ("app", "registry/app:1")},
    )
    item["status"]["podIPs"].append({"ip": "fd00::9"})
    record = read_pod(item)
    assert record is not None
    assert (record.uid, record.cgroup_uid) == ("uid-1", "uid-1")
    assert (record.pod.namespace, record.pod.name, record.pod.service_account) == ("team-a", "web-1", "web")
    assert dict(record.pod.labels) == {"app": "web"}
    known = frozenset(ipaddress.ip_address(one).packed for one in ("10.0.0.9", "fd00::9"))
    assert record.addresses == known
    assert record.containers[ID] == ("app", "registry/app:1")


def test_a_pod_on_the_hosts_network_or_without_an_address_yet_has_none() -> None:
    for item in (pod_object("a", "u"), pod_object("a", "u", "10.0.0.1", host_network=True)):
        record = read_pod(item)
        assert record is not None
        assert record.addresses is None


def test_a_pod_of_the_kubelets_own_manifests_is_known_by_its_hash() -> None:
    record = read_pod(pod_object("a", "u", annotations={"kubernetes.io/config.hash": "ab" * 16}))
    assert record is not None
    assert (record.uid, record.cgroup_uid) == ("u", "ab" * 16)


@pytest.mark.parametrize("missing", ["name", "namespace", "uid"])
def test_without_a_name_namespace_or_uid_it_is_no_pod(missing: str) -> None:
    item = pod_object("a", "u")
    del item["metadata"][missing]
    assert read_pod(item) is None


def test_labels_are_bounded_and_of_text() -> None:
    labels = {
        "good": "1",
        "number": 7,
        "control": "a\nb",
        "long": "x" * 2000,
        **{f"l{n}": "v" for n in range(999)},
    }
    record = read_pod(pod_object("a", "u", labels=labels))
    assert record is not None
    assert record.pod.labels["good"] == "1"
    assert not {"number", "control", "long"} & record.pod.labels.keys()
    assert len(record.pod.labels) < 256


def test_a_page_has_its_version_and_where_the_next_one_begins() -> None:
    document = {"kind": "PodList", "metadata": {"resourceVersion": "7", "continue": "c"}, "items": [{}, 3]}
    page = read_page(json.dumps(document).encode())
    assert (page.records, page.version, page.more) == ((), "7", "c")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind": "NodeList", "items": [], "metadata": {"resourceVersion": "7"}}',
        b'{"kind": "PodList", "items": {}, "metadata": {"resourceVersion": "7"}}',
        b'{"kind": "PodList", "items": [], "metadata": {}}',
    ],
)
def test_what_is_no_list_of_pods_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no|has|Expecting"):
        read_page(body)


def test_events_are_of_pods_versions_and_errors() -> None:
    item = pod_object("a", "u")
    item["metadata"]["resourceVersion"] = "9"
    assert read_event(json.dumps({"type": "ADDED", "object": item}).encode()) == PodEvent(
        "ADDED", "9", read_pod(item)
    )
    assert read_event(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}').version == "12"
    assert read_event(b'{"type":"ERROR","object":{"code":410}}').code == 410
    assert read_event(b'{"type":"ERROR","object":{}}').code == 500
    with pytest.raises(ValueError, match="no event"):
        read_event(b'{"type":"SURPRISE","object":{}}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda c: st.lists(c) | st.dictionaries(st.text(), c),
)


@given(JSON)
def test_any_other_shape_is_no_pod(item: object) -> None:
    for one in (item, {"metadata": item}, {**pod_object("a", "u"), "status": item, "spec": item}):
        record = read_pod(one)
        assert record is None or record.pod.name == "a"
    for read in (read_page, read_event):
        try:
            read(json.dumps(item).encode())
        except ValueError:
            continue
