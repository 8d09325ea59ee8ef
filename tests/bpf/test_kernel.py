"""Maps, programs and links in the kernel, and what it says of wrong ones."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from imds_proxy.bpf.assembler import Register, assemble, leave, put
from imds_proxy.bpf.kernel import Bpf, Kind, MapReader, MapShape, Place, allow_locked_memory, netns_cookie
from places import cgroup

SHAPE = MapShape("imds_test", 8, 8, 16)
ALLOW, DENY = (assemble([put(Register.R0, verdict), leave()]) for verdict in (1, 0))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def kept() -> Iterator[Callable[[int], int]]:
    held: list[int] = []

    def keep(descriptor: int) -> int:
        held.append(descriptor)
        return descriptor

    yield keep
    for descriptor in held:
        os.close(descriptor)


def test_an_unknown_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="vax"))
    with pytest.raises(OSError, match="vax"):
        Bpf()


@pytest.mark.root
@needs_root
class TestInTheKernel:
    def test_a_program_that_the_verifier_refuses_says_why(self) -> None:
        with pytest.raises(OSError, match=r"program: .*R0 !read_ok"):
            Bpf().program(Kind.SOCK_ADDR, Place.CONNECT4, assemble([leave()]))

    def test_what_is_put_into_a_map_is_found_and_nothing_else(self, kept: Callable[[int], int]) -> None:
        bpf = Bpf()
        reader = MapReader(bpf, kept(bpf.map(SHAPE)), 8, 8)
        descriptor = kept(bpf.map(SHAPE))
        reader = MapReader(bpf, descriptor, 8, 8)
        assert reader.get(bytes(8)) is None
        bpf.put(descriptor, bytes(8), b"12345678")
        assert reader.get(bytes(8)) == b"12345678"

    def test_an_array_is_of_zeros_at_first(self, kept: Callable[[int], int]) -> None:
        bpf = Bpf()
        descriptor = kept(bpf.map(MapShape("imds_test", 4, 8, 1, lru=False)))
        assert MapReader(bpf, descriptor, 4, 8).get(bytes(4)) == bytes(8)

    @pytest.mark.parametrize(
        "other",
        [
            MapShape("imds_other", 8, 8, 16),
            MapShape("imds_test", 4, 8, 16),
            MapShape("imds_test", 8, 16, 16),
            MapShape("imds_test", 8, 8, 32),
            MapShape("imds_test", 4, 8, 16, lru=False),
        ],
    )
    def test_a_map_is_known_by_its_name_kind_and_sizes(
        self, kept: Callable[[int], int], other: MapShape
    ) -> None:
        bpf = Bpf()
        descriptor = kept(bpf.map(SHAPE))
        assert bpf.is_map(descriptor, SHAPE)
        assert not bpf.is_map(descriptor, other)

    def test_another_file_is_neither_map_nor_link(self, tmp_path: Path, kept: Callable[[int], int]) -> None:
        bpf = Bpf()
        descriptor = kept(os.open(tmp_path, os.O_RDONLY))
        assert not bpf.is_map(descriptor, SHAPE)
        assert not bpf.is_link(descriptor, Place.CONNECT4)

    def test_a_link_is_known_by_its_place_until_its_cgroup_is_gone(self, kept: Callable[[int], int]) -> None:
        bpf = Bpf()
        with cgroup(f"imds-proxy-test-link-{os.getpid()}") as path:
            root = kept(os.open(path, os.O_RDONLY))
            program = kept(bpf.program(Kind.SOCK_ADDR, Place.CONNECT4, ALLOW))
            link = kept(bpf.link(program, root, Place.CONNECT4))
            assert bpf.is_link(link, Place.CONNECT4)
            assert not bpf.is_link(link, Place.CONNECT6)
            assert not bpf.is_link(program, Place.CONNECT4)
            bpf.replace(link, kept(bpf.program(Kind.SOCK_ADDR, Place.CONNECT4, DENY)))
        for _ in range(500):  # the kernel detaches in its own time
            if not bpf.is_link(link, Place.CONNECT4):
                break
            ctypes.CDLL(None).usleep(10_000)
        assert not bpf.is_link(link, Place.CONNECT4)

    def test_the_limit_of_locked_memory_goes_up_where_that_is_allowed(self) -> None:
        allow_locked_memory()


def test_a_network_namespace_has_a_cookie_of_its_own() -> None:
    assert netns_cookie() == netns_cookie() != 0
