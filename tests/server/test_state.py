"""What is kept on disk: hashes and promises, never a token."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.caller import Identity
from imds_proxy.policy.tokenbook import Grant
from imds_proxy.server.state import GrantFile, boot_id, seal_secret

GRANT = (b"h" * 32, Grant(Identity(1000, unit="a.service"), 500.0))


def test_grants_survive_a_restart(tmp_path: Path) -> None:
    file = GrantFile(tmp_path, "boot")
    file.rewrite([])
    file.save([GRANT], live=list)
    assert GrantFile(tmp_path, "boot").load(now=100.0) == [GRANT]


def test_the_last_promise_counts_and_expired_ones_are_forgotten(tmp_path: Path) -> None:
    file = GrantFile(tmp_path, "boot")
    longer = (GRANT[0], Grant(GRANT[1].identity, 900.0))
    file.rewrite([GRANT])
    file.save([longer, (b"x" * 32, Grant(Identity(0), 99.0))], live=list)
    assert file.load(now=100.0) == [longer]


def test_the_file_does_not_grow_with_every_promise(tmp_path: Path) -> None:
    """A caller that asks for a token each second for a month."""
    file = GrantFile(tmp_path, "boot")
    file.rewrite([])
    for batch in range(100):
        promises = [(GRANT[0], Grant(GRANT[1].identity, float(batch * 1000 + n))) for n in range(1000)]
        file.save(promises, live=lambda latest=promises[-1]: [latest])  # type: ignore[misc]
    assert len((tmp_path / "tokens.jsonl").read_text().splitlines()) < 40_000
    assert file.load(now=0.0) == [(GRANT[0], Grant(GRANT[1].identity, 99_999.0))]


def test_grants_of_another_boot_mean_nothing(tmp_path: Path) -> None:
    GrantFile(tmp_path, "before").rewrite([GRANT])
    assert GrantFile(tmp_path, "after").load(now=0.0) == []


def test_no_file_is_no_grant(tmp_path: Path) -> None:
    assert GrantFile(tmp_path, "boot").load(now=0.0) == []


@given(st.binary(max_size=300))
def test_a_torn_or_forged_line_is_passed_over(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    directory = tmp_path_factory.mktemp("state")
    file = GrantFile(directory, "boot")
    file.rewrite([GRANT])
    with (directory / "tokens.jsonl").open("ab") as raw:
        raw.write(tail)
    assert GRANT in file.load(now=0.0)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, device: str) -> None:
    (tmp_path / "tokens.jsonl").symlink_to(device)
    with pytest.raises(OSError, match="symbolic"):
        GrantFile(tmp_path, "boot").load(now=0.0)
    (tmp_path / "tokens.jsonl").unlink()
    os.mkfifo(tmp_path / "tokens.jsonl")
    with pytest.raises(OSError, match="regular"):
        GrantFile(tmp_path, "boot").load(now=0.0)


def test_the_files_are_their_owners_only(tmp_path: Path) -> None:
    GrantFile(tmp_path, "boot").rewrite([GRANT])
    seal_secret(tmp_path)
    for name in ("tokens.jsonl", "seal.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    assert seal_secret(tmp_path) == seal_secret(tmp_path)


def test_a_cut_secret_is_said_not_used(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"seal\.key: not 32 bytes"):
        seal_secret(tmp_path)


def test_the_boot_id_is_the_kernels() -> None:
    assert len(boot_id()) == 36
