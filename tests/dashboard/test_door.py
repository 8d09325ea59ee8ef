"""The key opens once, then the cookie does."""

from __future__ import annotations

from imds_proxy.dashboard.door import COOKIE, Door


def test_the_key_opens_once_and_gives_the_cookie() -> None:
    door = Door()
    assert door.open("/") is None
    assert door.open("/wrong") is None
    cookie = door.open(f"/{door.key}")
    assert cookie is not None
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    value = cookie.split(";")[0]
    assert door.knows([f"other=1; {value}"])
    assert door.open(f"/{door.key}") is None, "a second time it opens nothing"
    assert door.knows([value])


def test_no_other_cookie_is_known() -> None:
    door = Door()
    assert not door.knows([])
    assert not door.knows([f"{COOKIE}=", f"{COOKIE}={door.key}", "\xff"])
    assert Door().key != Door().key
