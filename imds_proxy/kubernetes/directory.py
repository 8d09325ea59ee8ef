"""The pods of this machine by their uid, as last heard. Thread-safe; does no IO."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from cachetools import LRUCache

from imds_proxy.kubernetes.objects import PodEvent, PodRecord
from imds_proxy.policy.caller import Pod

_MOST = 4096  # pods; a node has some hundreds
_ASKED = 4096


class PodDirectory:
    """Looked up by the uid in a pod's cgroup."""

    def __init__(self) -> None:
        self._changed: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._by_uid: dict[str, PodRecord] = {}
        self._by_cgroup: dict[str, PodRecord] = {}
        self._asked: LRUCache[str, None] = LRUCache(_ASKED)
        self.dropped = 0  # pods that there was no room for

    def __len__(self) -> int:
        return len(self._by_uid)

    def on_change(self, call: Callable[[], None]) -> None:
        """What is called when an answer that was given is no longer true: a pod has become known, or has
        other labels or addresses."""
        self._changed = call

    def of(self, uid: str) -> Pod | None:
        """The pod; None for one that is not known."""
        with self._lock:
            self._asked[uid] = None
            record = self._by_cgroup.get(uid)
        return record.pod if record is not None else None

    def may_have(self, uid: str, address: bytes) -> bool:
        """Whether the pod can call from this address (packed): not if it is known to have others."""
        record = self._by_cgroup.get(uid)
        return record is None or record.addresses is None or address in record.addresses

    def container(self, uid: str, container: str) -> tuple[str, str] | None:
        """Name and image of one of a pod's containers, by its id; None while that is not known."""
        record = self._by_cgroup.get(uid)
        return record.containers.get(container) if record is not None else None

    def replace(self, records: Iterable[PodRecord]) -> None:
        """All pods that there are."""
        kept: dict[str, PodRecord] = {}
        dropped = 0
        for record in records:
            if len(kept) < _MOST:
                kept[record.uid] = record
            else:
                dropped += 1
        with self._lock:
            before, self._by_uid = self._by_cgroup, kept
            self._by_cgroup = {record.cgroup_uid: record for record in kept.values()}
            self.dropped = dropped
            told = any(before.get(uid) != self._by_cgroup.get(uid) for uid in self._asked)
        if told and self._changed is not None:
            self._changed()

    def take(self, event: PodEvent) -> None:
        """What a watch tells. A pod that is gone is forgotten: its uid is never given again."""
        record = event.record
        if record is None:
            return
        with self._lock:
            before = self._by_uid.pop(record.uid, None)
            if before is not None:
                self._by_cgroup.pop(before.cgroup_uid, None)
            if event.kind == "DELETED":
                return
            if len(self._by_uid) >= _MOST:
                self.dropped += 1
                return
            self._by_uid[record.uid] = self._by_cgroup[record.cgroup_uid] = record
            told = before != record and record.cgroup_uid in self._asked
        if told and self._changed is not None:
            self._changed()
