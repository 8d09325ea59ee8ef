"""Modules of Go executables, real and broken ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goprogram import GoModule, build_program
from imds_proxy.clients.gobuild import Module, modules, parse_modules
from imds_proxy.clients.rooted import Budget

TEXT = (
    "path\texample.com/app\nmod\texample.com/app\t(devel)\t\n"
    "dep\tgithub.com/aliyun/credentials-go\tv1.3.9\th1:abc=\n"
    "dep\tgithub.com/forked\tv1.0.0\n=>\tgithub.com/fork\tv2.0.0\th1:x=\n"
    "dep\tgithub.com/pinned\tv1.0.0\n=>\tgithub.com/pinned\tv1.1.0\th1:x=\n"
    "build\t-compiler=gc\n"
)
MODULES = (
    Module("example.com/app", None, True),
    Module("github.com/aliyun/credentials-go", "v1.3.9"),
    Module("github.com/forked", None),
    Module("github.com/pinned", "v1.1.0"),
)
FRAME = b"0123456789abcdef"


def executable(text: str = TEXT, *, old: bool = False) -> bytes:
    """A small ELF file with build info: in place, or by pointers as before Go 1.18."""
    info = FRAME + text.encode() + FRAME
    start, address = 4096, 0x400000
    if old:
        header = b"\xff Go buildinf:" + bytes([8, 0]) + struct.pack("<QQ", address + 32, address + 48)
        strings = struct.pack("<QQ", address + 64, 6) + struct.pack("<QQ", address + 80, len(info))
        blob = header + strings + b"go1.13" + bytes(10) + info
    else:
        blob = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + b"\x08go1.22.0" + varint(len(info)) + info
    elf = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 6, start, address, address, len(blob), len(blob), 4096)
    return (elf + segment).ljust(start, b"\0") + blob


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def found(path: Path, content: bytes | None = None) -> tuple[Module, ...]:
    if content is not None:
        path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return modules(descriptor, Budget())
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("old", [False, True], ids=["in place", "by pointers"])
def test_build_info_of_both_forms_is_read(tmp_path: Path, old: bool) -> None:
    assert found(tmp_path / "app", executable(old=old)) == MODULES


def test_what_the_real_linker_writes_is_read(tmp_path: Path) -> None:
    library = GoModule(
        "github.com/aliyun/credentials-go", "v1.3.9", {"credentials.go": "package credentials\n"}
    )
    source = 'package main\n\nimport _ "github.com/aliyun/credentials-go"\n\nfunc main() {}\n'
    path = build_program(tmp_path, "example.com/app", source, [library])
    assert found(path) == (
        Module("example.com/app", None, True),
        Module("github.com/aliyun/credentials-go", "v1.3.9"),
    )


def test_a_module_that_another_stands_for_has_no_version() -> None:
    assert tuple(parse_modules(TEXT)) == MODULES


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(5000), b"\x7fELF\x02\x01" + b"\xff" * 200]
)
def test_what_is_no_go_executable_has_no_modules(tmp_path: Path, content: bytes) -> None:
    assert found(tmp_path / "app", content) == ()


def test_a_length_that_is_a_lie_is_not_believed(tmp_path: Path) -> None:
    content = executable()
    at = content.index(b"go1.22.0") + 8
    assert found(tmp_path / "app", content[:at] + varint(1 << 60) + content[at + 2 :]) == ()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_executable_is_survived(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(executable(old=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        near = st.one_of(st.integers(0, 130), st.integers(4096, len(content) - 1))
        content[data.draw(near)] = data.draw(st.integers(0, 255))
    found(tmp_path / "app", bytes(content))
