from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.callers.cgroups import Membership, parse_memberships, path_membership, unified_path

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
POD = "12345678-1234-1234-1234-123456789abc"
POD_ = POD.replace("-", "_")

UNITS = [
    ("/system.slice/nginx.service", "nginx.service"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
    ("/system.slice/nginx.service/worker/3", "nginx.service"),
    ("/system.slice/outer.service/inner.service", "outer.service"),
    ("/init.scope", "init.scope"),
    ("/machine.slice/libpod-conmon-" + ID + ".scope", "libpod-conmon-" + ID + ".scope"),
    ("/machine.slice/machine-box.scope/payload/system.slice/ssh.service", "machine-box.scope"),
    ("/user.slice/user-1000.slice/session-3.scope", "user-1000.slice"),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user-1000.slice"),
    ("/user@1000.service/app.slice/foo.service", "user-1000.slice"),
    ("/user.slice/user-1000.slice", "user-1000.slice"),
    ("/", None),
    ("/system.slice", None),
    ("/../../system.slice/foo.service", "foo.service"),
]

CONTAINERS = [
    (f"/system.slice/docker-{ID}.scope", ID),
    (f"/docker/{ID}", ID),
    (f"/docker/{ID}/system.slice/ssh.service", ID),
    (f"/docker/{ID}/docker/{OTHER}", ID),
    (f"/system.slice/nerdctl-{ID}.scope", ID),
    (f"/machine.slice/libpod-{ID}.scope/container", ID),
    (f"/libpod_parent/{OTHER}/libpod-{ID}", ID),
    (f"/libpod_parent/libpod-{ID}", ID),
    (f"/libpod_parent/{OTHER}", OTHER),
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/cri-containerd-{ID}.scope",
        ID,
    ),
    (f"/kubepods.slice/kubepods-pod{POD_}.slice/crio-{ID}.scope/container", ID),
    (f"/kubepods/besteffort/pod{POD}/{ID}", ID),
    (f"/system.slice/containerd.service/kubepods-burstable-pod{POD_}.slice:cri-containerd:{ID}", ID),
    (f"/kubepods/besteffort/pod{POD}", f"pod{POD}"),
    (f"/kubepods.slice/kubepods-pod{POD_}.slice/strange-runtime", f"pod{POD}"),
]

SELF_MADE = [
    (f"/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope", f"user-1000.slice/{ID}"),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", f"user-1000.slice/{ID}"),
    (f"/system.slice/web.service/docker-{ID}.scope", f"web.service/{ID}"),
    (f"/user@1000.service/{ID}", f"user-1000.slice/{ID}"),
]


@pytest.mark.parametrize(("path", "unit"), UNITS)
def test_a_path_names_its_outermost_unit(path: str, unit: str | None) -> None:
    assert path_membership(path) == Membership(unit=unit)


@pytest.mark.parametrize(("path", "container"), CONTAINERS)
def test_a_path_names_its_container_instead_of_a_unit(path: str, container: str) -> None:
    membership = path_membership(path)
    assert (membership.unit, membership.container) == (None, container)
    assert membership.pod == (POD if "pod" + POD[:8] in path else None)


def test_a_pod_of_the_kubelets_own_manifests_has_a_hash_for_a_uid() -> None:
    path = f"/kubepods/burstable/pod{ID[:32]}/{OTHER}"
    assert path_membership(path) == Membership(container=OTHER, pod=ID[:32])


def test_a_pod_in_somebodys_own_part_of_the_tree_is_none() -> None:
    for path in (f"/user.slice/user-7.slice/pod{POD}/{ID}", f"/system.slice/web.service/pod{POD}"):
        assert path_membership(path).pod is None


@pytest.mark.parametrize(("path", "container"), SELF_MADE)
def test_a_container_in_somebodys_own_part_of_the_tree_never_passes_for_another(
    path: str, container: str
) -> None:
    assert path_membership(path) == Membership(container=container)


def test_on_v2_the_only_line_counts() -> None:
    assert parse_memberships("0::/system.slice/web.service\n") == Membership(unit="web.service")
    assert unified_path("0::/system.slice/web.service\n") == "/system.slice/web.service"


def test_on_hybrid_hosts_systemds_own_hierarchy_wins() -> None:
    text = "9:name=systemd:/system.slice/web.service\n4:memory:/other.service\n0::/system.slice/old.service\n"
    assert parse_memberships(text) == Membership(unit="web.service")


def test_on_v1_a_container_in_any_hierarchy_wins() -> None:
    text = f"9:name=systemd:/system.slice/web.service\n4:memory:/docker/{ID}\n1:cpu,cpuacct:/\n"
    assert parse_memberships(text) == Membership(container=ID)
    assert unified_path(text) is None


def test_a_unit_known_to_one_hierarchy_only_is_still_found() -> None:
    assert (
        parse_memberships("9:name=systemd:/\n4:memory:/system.slice/web.service\n0::/\n").unit
        == "web.service"
    )


def test_a_colon_in_a_cgroups_name_is_part_of_the_path() -> None:
    assert unified_path("0::/a:b/c:d\n") == "/a:b/c:d"


@given(st.text())
def test_any_text_gives_at_most_one_of_unit_and_container(text: str) -> None:
    membership = parse_memberships(text)
    assert membership.unit is None or membership.container is None


@given(
    st.lists(
        st.sampled_from([path for path, _ in UNITS + CONTAINERS + SELF_MADE]).map(lambda p: p.strip("/"))
    )
)
def test_nothing_below_a_users_slice_is_a_container_or_unit_of_the_system(parts: list[str]) -> None:
    membership = path_membership("/" + "/".join(["user.slice", "user-7.slice", *parts]))
    named = membership.unit or membership.container
    assert named is not None
    assert named == "user-7.slice" or named.startswith("user-7.slice/")
