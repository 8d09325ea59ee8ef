"""Pods as the API server writes them, as values. Pure; what is missing or of another shape is no pod."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from imds_proxy.policy.caller import Pod

_STATIC_UID = "kubernetes.io/config.hash"  # by which the kubelet knows a pod of its own manifest folder
_MOST_LABELS, _MOST_CONTAINERS = 256, 256
_LONGEST = 1024  # characters of a name or label


@dataclass(frozen=True, slots=True)
class PodRecord:
    """One pod: its uid with the API server, the uid in its cgroup's name, its addresses (packed).

    `addresses` is None while it has none, and for a pod on the host's own network. `containers` are name and
    image by container id.
    """

    uid: str
    cgroup_uid: str
    pod: Pod
    addresses: frozenset[bytes] | None
    containers: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class PodPage:
    """One page of a list: `version` to watch from, `more` to ask for the next page (empty: none)."""

    records: tuple[PodRecord, ...]
    version: str
    more: str


@dataclass(frozen=True, slots=True)
class PodEvent:
    """One line of a watch. `kind` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR; `version` to go on from;
    `code` is of an error (410: the version is too old)."""

    kind: str
    version: str = ""
    record: PodRecord | None = None
    code: int = 0


def read_page(body: bytes) -> PodPage:
    """Raises ValueError for what is no list of pods."""
    document = _mapping(json.loads(body))
    if document.get("kind") != "PodList" or not isinstance(document.get("items"), list):
        raise ValueError("it is no list of pods")
    metadata = _mapping(document.get("metadata"))
    version = _text(metadata.get("resourceVersion"))
    if not version:
        raise ValueError("the list has no resourceVersion")
    found = (read_pod(item) for item in document["items"])
    return PodPage(tuple(one for one in found if one), version, _text(metadata.get("continue")))


def read_event(line: bytes) -> PodEvent:
    """Raises ValueError for what is no event."""
    document = _mapping(json.loads(line))
    kind, item = document.get("type"), _mapping(document.get("object"))
    if kind == "ERROR":
        code = item.get("code")
        return PodEvent("ERROR", code=code if isinstance(code, int) else 500)
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ValueError("it is no event")
    version = _text(_mapping(item.get("metadata")).get("resourceVersion"))
    return PodEvent(kind, version, None if kind == "BOOKMARK" else read_pod(item))


def read_pod(item: object) -> PodRecord | None:
    """None for what lacks a name, namespace or uid."""
    pod = item if isinstance(item, dict) else {}
    try:
        metadata, spec = _mapping(pod.get("metadata")), _mapping(pod.get("spec") or {})
        status = _mapping(pod.get("status") or {})
        labels = _mapping(metadata.get("labels") or {})
        notes = _mapping(metadata.get("annotations") or {})
        uid, name, namespace = (_text(metadata.get(key)) for key in ("uid", "name", "namespace"))
    except ValueError:
        return None
    if not (uid and name and namespace):
        return None
    kept = {
        key: value
        for key, value in list(labels.items())[:_MOST_LABELS]
        if isinstance(key, str) and _text(value) == value and len(key) <= _LONGEST
    }
    account = _text(spec.get("serviceAccountName"))
    on_host = spec.get("hostNetwork") is True
    return PodRecord(
        uid=uid,
        cgroup_uid=_text(notes.get(_STATIC_UID)) or uid,
        pod=Pod(namespace, name, account, MappingProxyType(kept)),
        addresses=None if on_host else _addresses(status),
        containers=MappingProxyType(dict(_containers(status))),
    )


def _addresses(status: dict[str, Any]) -> frozenset[bytes] | None:
    listed = status.get("podIPs")
    texts = [one.get("ip") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = set()
    for text in (*texts, status.get("podIP")):
        if isinstance(text, str):
            try:
                found.add(ipaddress.ip_address(text).packed)
            except ValueError:
                continue
    return frozenset(found) or None


def _containers(status: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for key in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        listed = status.get(key)
        for one in listed[:_MOST_CONTAINERS] if isinstance(listed, list) else ():
            if isinstance(one, dict):
                number = _text(one.get("containerID")).rpartition("://")[2]
                if number:
                    yield number, (_text(one.get("name")), _text(one.get("image")))


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST and value.isprintable() else ""
