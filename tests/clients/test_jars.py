"""Libraries in archives, and archives that were made to hurt."""

from __future__ import annotations

import io
import os
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imds_proxy.clients.jars import libraries
from imds_proxy.clients.rooted import Budget, Exhausted
from trees import jar, pom

NAMES = frozenset({"com.aliyun:credentials-java", "com.aliyun:aliyun-java-sdk-core"})
CREDENTIALS = pom("com.aliyun", "credentials-java", "0.3.2")


def found(path: Path, budget: Budget | None = None) -> list[tuple[str, str | None]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        each = libraries(descriptor, size, str(path), NAMES, budget or Budget())
        return [(one.name, one.version) for one in each]
    finally:
        os.close(descriptor)


def test_maven_s_properties_tell(tmp_path: Path) -> None:
    path = jar(tmp_path / "app.jar", CREDENTIALS)
    assert found(path) == [("com.aliyun:credentials-java", "0.3.2")]


def test_a_shaded_jar_has_many(tmp_path: Path) -> None:
    path = jar(
        tmp_path / "all.jar",
        {**CREDENTIALS, **pom("com.aliyun", "aliyun-java-sdk-core", "4.6.0"), **pom("x", "y", "1")},
    )
    assert sorted(found(path)) == [
        ("com.aliyun:aliyun-java-sdk-core", "4.6.0"),
        ("com.aliyun:credentials-java", "0.3.2"),
    ]


@pytest.mark.parametrize("inside", [CREDENTIALS, {"a.class": "x"}])
def test_a_fat_jar_holds_jars(tmp_path: Path, inside: dict[str, str | bytes]) -> None:
    inner = jar(tmp_path / "inner.jar", inside).read_bytes()
    path = jar(
        tmp_path / "app.jar",
        {"BOOT-INF/lib/credentials-java-0.3.2.jar": inner, "BOOT-INF/lib/other-1.0.jar": b"x"},
    )
    assert found(path) == [("com.aliyun:credentials-java", "0.3.2")]


def test_without_properties_the_file_s_name_and_its_manifest_tell(tmp_path: Path) -> None:
    named = jar(tmp_path / "credentials-java-0.2.11.jar", {"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"})
    assert found(named) == [("com.aliyun:credentials-java", "0.2.11")]
    plain = jar(
        tmp_path / "credentials-java.jar", {"META-INF/MANIFEST.MF": "Implementation-Version: 0.3.4\r\n"}
    )
    assert found(plain) == [("com.aliyun:credentials-java", "0.3.4")]
    unsaid = jar(tmp_path / "x/credentials-java.jar", {"a": "b"})
    assert found(unsaid) == [("com.aliyun:credentials-java", None)]


def test_another_library_is_none_of_ours(tmp_path: Path) -> None:
    assert found(jar(tmp_path / "guava-33.jar", pom("com.google", "guava", "33"))) == []


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_has_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jar"
    path.write_bytes(content)
    assert found(path) == []


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Properties of 64 MiB: the first 16 KiB are read, and nothing is believed of them."""
    path = tmp_path / "bomb.jar"
    name = "META-INF/maven/com.aliyun/credentials-java/pom.properties"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    began = time.monotonic()
    assert found(path) == [("com.aliyun:credentials-java", None)]
    assert time.monotonic() - began < 20


def test_a_nested_bomb_is_not_unpacked_beyond_its_bound(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("zeros", bytes(64 << 20))
    path = jar(tmp_path / "bomb.jar", {"lib/credentials-java-0.3.2.jar": inner.getvalue()})
    assert path.stat().st_size < 1 << 20
    assert found(path, Budget(size=8 << 20)) == []


def test_unpacking_counts_against_the_budget(tmp_path: Path) -> None:
    inner = bytes(10 << 20)
    path = jar(tmp_path / "bomb.jar", {"lib/credentials-java-0.3.2.jar": inner})
    with pytest.raises(Exhausted):
        found(path, Budget(size=1 << 20))


def test_a_directory_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jar"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(64 << 20)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 60 << 20, 0, 0))
    assert found(path, Budget(size=1 << 20)) == []


def test_a_hundred_thousand_entries_are_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "many.jar"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"some/longer/name/of/an/entry/{number}", b"")
    began = time.monotonic()
    assert found(path) == []
    assert time.monotonic() - began < 20


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_survived(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(jar(tmp_path / "app.jar", CREDENTIALS).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.jar"
    path.write_bytes(content)
    assert all(name in NAMES for name, _ in found(path))
