import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.emulator.settings import FAULTS, Settings, SettingsError, as_json, merged

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_the_defaults_are_the_documented_service() -> None:
    settings = Settings()
    assert (settings.http_tokens, settings.role, settings.throttle, settings.fault) == (
        "optional", "demo-role", None, None,
    )  # fmt: skip
    assert (settings.credential_life, settings.rotation_lead) == (6 * 3600, 30 * 60)


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    changed = merged(Settings(latency=0.5), {"http_tokens": "required", "throttle": 20})
    assert changed == Settings(latency=0.5, http_tokens="required", throttle=20)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_set_and_cleared_with_null(fault: str) -> None:
    assert merged(merged(Settings(), {"fault": fault}), {"fault": None}) == Settings()


def test_null_sets_null_where_it_may_and_the_default_elsewhere() -> None:
    changed = merged(Settings(latency=3, role="other"), {"latency": None, "role": None})
    assert (changed.latency, changed.role) == (0, None)


def test_extra_items_are_merged_and_null_takes_one_away() -> None:
    once = merged(Settings(), {"extra_items": {"meta-data/a": "1", "meta-data/b": "2"}})
    assert merged(once, {"extra_items": {"meta-data/a": None}}).extra_items == {"meta-data/b": "2"}
    assert merged(once, {"extra_items": None}).extra_items == {}


@pytest.mark.parametrize(
    ("patch", "key", "allowed"),
    [
        ({"http_tokens": "yes"}, "http_tokens", "one of optional, required"),
        ({"latency": "1s"}, "latency", "seconds from 0 to 3600"),
        ({"latency": True}, "latency", "seconds from 0 to 3600"),
        ({"latency": float("nan")}, "latency", "seconds from 0 to 3600"),
        ({"latency": 10**400}, "latency", "seconds from 0 to 3600"),
        ({"throttle": 0}, "throttle", "requests a second, over 0, or null"),
        ({"throttle_status": 200}, "throttle_status", "a whole number from 400 to 599"),
        ({"put_status": 40.5}, "put_status", "a whole number from 200 to 599, or null"),
        ({"keep_alive": 1}, "keep_alive", "true or false"),
        ({"fault_rate": 1.5}, "fault_rate", "a fraction from 0 to 1"),
        ({"role": "a/b"}, "role", "a role name"),
        ({"rotation_lead": 21600}, "rotation_lead", "less than credential_life"),
        ({"extra_items": {"/latest/x": "1"}}, "extra_items", "an object of paths"),
        ({"extra_items": {"a": 1}}, "extra_items", "an object of paths"),
        ({"hidden_items": "a"}, "hidden_items", "a list of paths"),
        ({"user_data": "\ud800"}, "user_data", "text, or null"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(
    patch: dict[str, object], key: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        merged(Settings(), patch)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.allowed.startswith(allowed)


def test_an_unknown_key_is_refused_with_its_nearest_neighbour_and_every_problem_is_told() -> None:
    with pytest.raises(SettingsError) as caught:
        merged(Settings(), {"latencey": 1, "fault": "boom"})
    assert [problem.key for problem in caught.value.problems] == ["latencey", "fault"]
    assert "did you mean latency?" in str(caught.value)


def test_a_wrong_setting_is_refused_when_it_is_constructed_too() -> None:
    with pytest.raises(SettingsError, match="http_tokens"):
        Settings(http_tokens="always")


@pytest.mark.parametrize("patch", [None, [], "x", 3])
def test_a_patch_that_is_no_object_is_refused(patch: object) -> None:
    with pytest.raises(SettingsError, match="a JSON object"):
        merged(Settings(), patch)


@given(JSON | st.dictionaries(st.sampled_from(sorted(as_json(Settings()))) | st.text(), JSON, max_size=4))
def test_any_patch_is_refused_or_gives_settings_that_survive_json(patch: object) -> None:
    try:
        settings = merged(Settings(), patch)
    except SettingsError:
        return
    assert merged(Settings(), json.loads(json.dumps(as_json(settings)))) == settings
