import json
import re

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.emulator.credentials import SECRET_MARK, Issuer, timestamp

LIFE, LEAD = 21600.0, 1800.0
EPOCH = 1_700_000_000


def read(issuer: Issuer, now: float) -> dict[str, str]:
    members: dict[str, str] = json.loads(issuer.rendered("demo-role", now, LIFE, LEAD))
    return members


def test_the_bytes_have_the_captured_form() -> None:
    text = Issuer(EPOCH).rendered("demo-role", EPOCH, LIFE, LEAD).decode()
    assert re.fullmatch(
        r' \{\n  "AccessKeyId" : "STS\.N\w+",\n  "AccessKeySecret" : "\w+",\n'
        r'  "Expiration" : "[0-9TZ:-]{20}",\n'
        r'  "SecurityToken" : "\w+",\n  "LastUpdated" : "[0-9TZ:-]{20}",\n  "Code" : "Success"\n\}',
        text,
    )
    assert 800 < len(text) < 1000


def test_a_set_lives_six_hours() -> None:
    first = read(Issuer(EPOCH), EPOCH + 60)
    assert (first["LastUpdated"], first["Expiration"]) == (timestamp(EPOCH), timestamp(EPOCH + 21600))


def test_a_new_set_is_offered_thirty_minutes_before_the_old_one_expires() -> None:
    issuer = Issuer(EPOCH)
    first = read(issuer, EPOCH)
    assert read(issuer, EPOCH + 19799) == first
    second = read(issuer, EPOCH + 19800)
    assert all(
        second[name] != first[name]
        for name in ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
    )
    assert second["LastUpdated"] == timestamp(EPOCH + 19800)


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_at_any_moment_the_offered_set_has_more_than_the_lead_to_live(after: float) -> None:
    now = EPOCH + after
    members = read(Issuer(EPOCH), now)
    assert members["LastUpdated"] <= timestamp(now + 1)
    assert members["Expiration"] >= timestamp(now + LEAD - 1)


def test_two_services_offer_different_sets() -> None:
    assert read(Issuer(EPOCH), EPOCH)["AccessKeyId"] != read(Issuer(EPOCH), EPOCH)["AccessKeyId"]


def test_each_part_of_a_secret_that_is_worth_something_can_be_recognised() -> None:
    members = read(Issuer(EPOCH), EPOCH)
    for name in ("AccessKeySecret", "SecurityToken"):
        text = members[name]
        parts = [text[at : at + 31] for at in range(len(text) - 31)]
        assert all(SECRET_MARK in part for part in parts)
    assert len(set(members["AccessKeySecret"])) > 10
