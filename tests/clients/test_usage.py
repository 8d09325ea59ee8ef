"""Calls by the names that the catalogue has for their paths."""

from __future__ import annotations

import pytest

from imds_proxy.clients.usage import Call, path_shape
from imds_proxy.protocol.session import Session

ROLE = "/latest/meta-data/ram/security-credentials/demo-role"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (ROLE, "role"),
        ("/latest/meta-data/ram/security-credentials/", "roles"),
        ("/latest/meta-data/ram/security-credentials", "roles"),
        ("/2016-01-01/meta-data/Ram/security-credentials/x", "Ram/role"),
        ("/latest/meta-data/Ram/security-credentials/", "Ram/roles"),
        ("/latest/meta-data/instance-id", "item"),
        ("/latest/user-data", None),
        ("/", None),
    ],
)
def test_paths_have_shapes(path: str, shape: str | None) -> None:
    assert path_shape(path) == shape


@pytest.mark.parametrize("spelt", ["ram", "Ram"])
def test_a_call_for_the_list_of_roles_is_told_from_one_for_a_role(spelt: str) -> None:
    path = f"/latest/meta-data/{spelt}/security-credentials/"
    assert Call(None, path, Session.LEGACY).lists_roles
    assert not Call(None, path + "demo-role", Session.LEGACY).lists_roles
