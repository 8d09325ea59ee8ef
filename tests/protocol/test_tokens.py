"""TTLs, hashes and sealed tokens (ATTACKS 30)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.errors import TOKEN_TTL, Refused
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.protocol.tokens import NONCE, Seal, is_token, parse_ttl, token_hash

SEAL = Seal.derive(b"secret", "boot", "i-1")
ME = b"(1000, 'me.service')"
N = bytes(NONCE)


@pytest.mark.parametrize(("value", "seconds"), [(b"1", 1), (b"60", 60), (b"21600", 21600), (b"00060", 60)])
def test_a_ttl_is_whole_seconds(value: bytes, seconds: int) -> None:
    assert parse_ttl(value, ALIBABA) == seconds


@pytest.mark.parametrize(
    "value",
    [None, b"", b"0", b"21601", b"-1", b"+60", b"1.5", b"60s", b" 60", b"6 0", b"0x3c", b"1e3", b"999999",
     b"60, 60", "٦٠".encode()],
)  # fmt: skip
def test_any_other_ttl_is_the_callers_mistake(value: bytes | None) -> None:
    with pytest.raises(Refused) as caught:
        parse_ttl(value, ALIBABA)
    assert caught.value.refusal is TOKEN_TTL


@given(st.integers(1, 21600))
def test_every_ttl_in_range_is_taken(seconds: int) -> None:
    assert parse_ttl(b"%d" % seconds, ALIBABA) == seconds


@pytest.mark.parametrize(
    ("text", "can_be"),
    [("a", True), ("a" * 2048, True), ("x+/==", True), ("", False), ("a" * 2049, False), ("a b", False),
     ("a\n", False), ("caf\xe9", False), ("\x7f", False)],
)  # fmt: skip
def test_a_token_is_visible_ascii_of_bounded_length(text: str, can_be: bool) -> None:
    assert is_token(text) is can_be


def test_a_hash_does_not_hold_the_token() -> None:
    assert len(token_hash("token")) == 32
    assert b"token" not in token_hash("token")
    assert token_hash("token") != token_hash("Token")


def test_a_sealed_token_opens_until_it_expires() -> None:
    token = SEAL.mint(ME, expires=160.0, nonce=N)
    assert is_token(token)
    owner = SEAL.open(token, now=159.9)
    assert owner is not None
    assert SEAL.is_for(owner, ME)
    assert not SEAL.is_for(owner, b"(1000, 'other.service')")
    assert SEAL.open(token, now=160.0) is None


@pytest.mark.parametrize(
    "other",
    [
        Seal.derive(b"other secret", "boot", "i-1"),
        Seal.derive(b"secret", "another boot", "i-1"),
        Seal.derive(b"secret", "boot", "i-2"),
        Seal.derive(b"secret", "boo", "ti-1"),
    ],
    ids=["key", "boot", "instance", "shifted"],
)
def test_a_token_of_another_key_boot_or_instance_does_not_open(other: Seal) -> None:
    assert other.open(SEAL.mint(ME, 1e9, N), 0.0) is None


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_makes_a_forgery(where: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(SEAL.mint(ME, 1e9, N) + "=="))
    raw[where % len(raw)] ^= 1 << bit
    forged = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    assert SEAL.open(forged, 0.0) is None


def test_no_character_can_be_exchanged() -> None:
    token = SEAL.mint(ME, 1e9, N)
    for where, character in enumerate(token):
        for other in "Ab09-_+/= \n":
            if other != character:
                assert SEAL.open(token[:where] + other + token[where + 1 :], 0.0) is None


@given(st.one_of(st.text(max_size=200), st.binary(max_size=120).map(lambda b: base64.b64encode(b).decode())))
def test_no_text_made_up_opens_or_raises(text: str) -> None:
    assert SEAL.open(text, 0.0) is None


@given(st.integers(0, 97))
def test_a_truncated_token_does_not_open(length: int) -> None:
    token = SEAL.mint(ME, 1e9, N)
    assert SEAL.open(token[: min(length, len(token) - 1)], 0.0) is None
