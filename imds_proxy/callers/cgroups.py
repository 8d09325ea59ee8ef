"""What a cgroup path says: the systemd unit or the container a process belongs to. Pure.

Knows nothing of files or processes. Names below a user's slice or a service are the user's own making.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RUNTIME_PREFIX = r"(?:docker-|cri-containerd-|crio-|libpod-|nerdctl-)"
_CONTAINER = re.compile(rf"{_RUNTIME_PREFIX}?([0-9a-f]{{64}})(?:\.scope)?")
_CONTAINERD_PLAIN = re.compile(r"[^:]*:cri-containerd:([0-9a-f]{64})")  # cgroupfs paths with a systemd driver
_POD = re.compile(r"(?:kubepods(?:-[a-z]+)?-)?pod([0-9a-f][0-9a-f_-]{31,35})(?:\.slice)?")
_PODMAN_POD = re.compile(r"^/libpod_parent/[0-9a-f]{64}(?=/)")  # with cgroupfs paths; a container's is below
_USER_SLICE = re.compile(r"user-[0-9]+\.slice")
_USER_MANAGER = re.compile(r"user@([0-9]+)\.service")
# These services start containers below their own cgroup when told to use cgroupfs paths.
_RUNTIME_SERVICES = frozenset({"docker.service", "containerd.service", "kubelet.service", "crio.service"})


@dataclass(frozen=True, slots=True)
class Membership:
    """At most one of systemd unit and container id; both None for a process outside of either. With a
    container there may be `pod`, the uid that the kubelet knows its pod by.

    A container made below a user's slice or an ordinary service's cgroup carries that as a prefix,
    `user-1000.slice/<id>`: whoever owns that part of the tree can give its cgroups any name.
    """

    unit: str | None = None
    container: str | None = None
    pod: str | None = None


def parse_memberships(text: str) -> Membership:
    """From the text of /proc/PID/cgroup: v1, v2 or hybrid. A container in any hierarchy wins over units.

    Among units the one of systemd's own hierarchy counts, then that of v2, then any other.
    """
    paths = sorted(_hierarchies(text), key=lambda item: _order(item[0]))
    found = [path_membership(path) for _, path in paths]
    for membership in found:
        if membership.container:
            return membership
    for membership in found:
        if membership.unit:
            return membership
    return Membership()


def unified_path(text: str) -> str | None:
    """The process's path in the v2 hierarchy (the line `0::PATH`); None without one."""
    for controllers, path in _hierarchies(text):
        if controllers == "":
            return path
    return None


def path_membership(path: str) -> Membership:
    """From one cgroup path, outermost name first: what lies deeper was named by those inside."""
    owner: str | None = None
    unit: str | None = None
    pod: str | None = None
    pod_uid: str | None = None
    for segment in _PODMAN_POD.sub("", path).split("/"):
        container = _container(segment)
        if container:
            if owner is None and pod is None:
                pod_uid = _pod_uid(segment.partition(":")[0])
            return Membership(container=_owned(owner, container), pod=pod_uid)
        if unit is not None:
            continue
        uid = _pod_uid(segment)
        if uid and pod is None:
            pod, pod_uid = _owned(owner, "pod" + uid), None if owner else uid
        elif owner is None and _USER_SLICE.fullmatch(segment):
            owner = segment
        elif segment.endswith((".service", ".scope")):
            manager = _USER_MANAGER.fullmatch(segment)
            unit = owner or (f"user-{manager[1]}.slice" if manager else segment)
            if owner is None and segment not in _RUNTIME_SERVICES:
                owner = unit
    if pod is not None:
        return Membership(container=pod, pod=pod_uid)
    return Membership(unit=unit or owner)


def _container(segment: str) -> str | None:
    match = _CONTAINER.fullmatch(segment) or _CONTAINERD_PLAIN.fullmatch(segment)
    return match[1] if match else None


def _pod_uid(segment: str) -> str | None:
    match = _POD.fullmatch(segment)
    return match[1].replace("_", "-") if match else None


def _owned(owner: str | None, name: str) -> str:
    return f"{owner}/{name}" if owner else name


def _hierarchies(text: str) -> list[tuple[str, str]]:
    """Pairs of controllers ("" for v2) and path. A cgroup's name may hold colons, never a newline."""
    found = []
    for line in text.split("\n"):
        _, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if first and second and path.startswith("/"):
            found.append((controllers, path))
    return found


def _order(controllers: str) -> int:
    if controllers == "name=systemd":
        return 0
    return 1 if controllers == "" else 2
