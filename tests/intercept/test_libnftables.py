from __future__ import annotations

import errno
import gc
import os

import pytest

from imds_proxy.intercept.libnftables import LowDescriptor, Nftables, NftError
from imds_proxy.intercept.redirect import InterceptError
from netns import nft


def test_a_missing_library_is_named_with_its_package() -> None:
    with pytest.raises(
        InterceptError, match=r"libnothere\.so\.1 cannot be loaded; install libnftables1"
    ) as error:
        Nftables("libnothere.so.1")
    assert error.value.slug == "no-libnftables"


@pytest.mark.usefixtures("network")
def test_commands_are_one_transaction() -> None:
    library = Nftables()
    with pytest.raises(NftError):
        library.run("add table inet one\nadd chain inet two nowhere\n")
    assert nft("list ruleset") == ""
    library.run("add table inet one\n")
    assert library.run("list tables") == nft("list tables") == "table inet one\n"
    assert '"name": "one"' in library.run("list tables", as_json=True)
    library.close()


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("commands", "code"), [("delete table inet nothere", errno.ENOENT), ("nonsense", None)]
)
def test_a_refusal_tells_its_reason(commands: str, code: int | None) -> None:
    library = Nftables()
    with pytest.raises(NftError) as error:
        library.run(commands)
    assert error.value.code == code
    assert str(error.value)
    library.close()


@pytest.mark.usefixtures("network")
def test_an_owned_table_lives_as_long_as_the_socket_whoever_holds_it() -> None:
    library = Nftables()
    library.run("table inet one { flags owner; }")
    copy = os.dup(library.descriptor)
    library.close()
    assert "table inet one" in nft("list tables")
    os.close(copy)
    assert nft("list tables") == ""


@pytest.mark.usefixtures("network")
def test_a_closed_context_refuses_and_closes_twice() -> None:
    library = Nftables()
    library.close()
    library.close()
    with pytest.raises(NftError, match="closed"):
        library.run("list tables")


@pytest.mark.usefixtures("network")
def test_a_low_descriptor_is_kept_for_the_library_which_would_abort_with_a_high_one() -> None:
    gc.collect()  # nothing that other tests left may free a low one in between
    kept = LowDescriptor()
    many = [os.dup(0) for _ in range(1100)]
    try:
        with pytest.raises(InterceptError, match="no low descriptor"):
            Nftables()
        kept.give()
        library = Nftables()
        library.run("list tables")
        library.close()
    finally:
        for descriptor in many:
            os.close(descriptor)
