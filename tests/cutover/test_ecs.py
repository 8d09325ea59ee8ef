"""The provider's own SDK against an emulated API."""

from __future__ import annotations

import pytest

from ecs_api import EcsApi, serving_ecs
from imds_proxy.cutover.ecs import CloudError, Ecs
from imds_proxy.cutover.steps import Instance


def test_instances_are_described_with_what_their_images_support() -> None:
    api = EcsApi(
        {
            "i-a": {},
            "i-b": {"HttpTokens": "required", "ImageId": "img-1", "OSType": "windows"},
            "i-c": {"ImageId": "x"},
        },
        images={"img-2": "v2", "img-1": None},
    )
    with serving_ecs(api):
        found = Ecs("cn-hangzhou", api.endpoint).describe(["i-a", "i-b", "i-c", "i-none"])
    ip = "192.168.0.9"
    assert found == {
        "i-a": Instance("i-a", "optional", "enabled", "linux", "img-2", "v2", ip),
        "i-b": Instance("i-b", "required", "enabled", "windows", "img-1", None, ip),
        "i-c": Instance("i-c", "optional", "enabled", "linux", "x", None, ip),
    }


def test_many_instances_are_asked_for_a_hundred_at_a_time() -> None:
    names = [f"i-{number}" for number in range(230)]
    api = EcsApi({name: {} for name in names})
    with serving_ecs(api):
        assert list(Ecs("cn-hangzhou", api.endpoint).describe(names)) == names
    assert [action for action, _ in api.calls].count("DescribeInstances") == 3
    assert [action for action, _ in api.calls].count("DescribeImages") == 1


def test_tokens_are_set_with_the_endpoint_left_enabled() -> None:
    api = EcsApi({"i-a": {}})
    with serving_ecs(api):
        Ecs("cn-hangzhou", api.endpoint).set_tokens("i-a", "required")
    assert api.changes() == [("i-a", "required")]
    assert api.calls[0][1]["HttpEndpoint"] == "enabled"
    assert api.calls[0][1]["RegionId"] == "cn-hangzhou"


def test_an_error_of_the_api_is_one_sentence_without_the_secret() -> None:
    api = EcsApi({"i-a": {}}, failures={"ModifyInstanceMetadataOptions": ["InvalidHttpTokens.NotSupported"]})
    with serving_ecs(api), pytest.raises(CloudError, match=r"InvalidHttpTokens\.NotSupported") as error:
        Ecs("cn-hangzhou", api.endpoint).set_tokens("i-a", "required")
    assert "a-secret" not in str(error.value)


def test_an_api_that_is_not_there_is_an_error_too() -> None:
    with pytest.raises(CloudError):
        Ecs("cn-hangzhou", "http://127.0.0.1:1").set_tokens("i-a", "required")
