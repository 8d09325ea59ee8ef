"""The sections' keys: what is refused, with what is allowed."""

from __future__ import annotations

import pytest

from imds_proxy.config import Cache, Config, ConfigErrors, parse


def test_the_times_of_the_cache_are_read() -> None:
    text = (
        "cache: {static: 2d, slow: 30s, volatile: 0s, missing: 1s, enabled: false, entries: 16, size: 64KiB}"
    )
    assert parse(text, "f").cache == Cache(
        static=172800.0, slow=30.0, volatile=0.0, missing=1.0, enabled=False, entries=16, size=65536
    )


def test_what_is_left_out_of_a_section_has_its_default() -> None:
    assert parse("cache: {slow: 30s}", "f") == Config(cache=Cache(slow=30.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache: {enabled: off}", "true or false"),
        ("cache: never", "mapping"),
        ("cache: {volatile: 10m}", "to 5m"),
        ("cache: {entries: 3}", "16 to 1000000"),
        (
            "cache: {credentials: 1h}",
            "unknown key 'credentials' in 'cache'; did you mean 'pods.credentials'? allowed is enabled",
        ),
        ("upstream: {deadline: 1s}", "50ms to 999ms"),
        ("limits: {misses: 0/s}", "above zero"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ConfigErrors) as raised:
        parse(text, "f")
    assert said in str(raised.value.errors[0])
