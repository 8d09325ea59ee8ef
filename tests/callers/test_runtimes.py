"""Names and images of containers, as four runtimes write them down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imds_proxy.callers.runtimes import ContainerRecords

ID = "c146e7005d994c2d58bfb0f04c01f5c5a3147cc3703a2f4964878681c81ac4a0"
OTHER = "95c4b4c03de5dd1ea5d9ce8a2771a4b01da4be9fed6ec040cc9fc6ffcaebd3df"


def write(root: Path, path: str, content: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))


def docker(root: Path) -> None:
    write(
        root,
        f"var/lib/docker/containers/{ID}/config.v2.json",
        {"ID": ID, "Name": "/web", "Config": {"Image": "nginx:1.25", "Env": ["SECRET=x"]}},
    )


def podman(root: Path) -> None:
    # As podman 4.3 wrote it.
    metadata = {"image-name": "localhost/web:1.2", "image-id": "0c3c", "name": "my-web", "created-at": 1}
    rows = [
        {"id": OTHER, "names": ["working-container"], "image": ""},
        {"id": ID, "names": ["my-web"], "image": "0c3c", "metadata": json.dumps(metadata)},
    ]
    write(root, "var/lib/containers/storage/vfs-containers/containers.json", rows)


def podman_volatile(root: Path) -> None:
    metadata = {"image-name": "localhost/job:3", "name": "once"}
    rows = [{"id": ID, "names": ["once"], "metadata": json.dumps(metadata)}]
    write(root, "run/containers/storage/overlay-containers/volatile-containers.json", rows)


def cri_o(root: Path) -> None:
    metadata = {
        "pod-name": "k8s_web",
        "image-name": "registry/app:7",
        "metadata": {"name": "app", "attempt": 0},
    }
    rows = [{"id": ID, "names": ["k8s_app_web_shop_0"], "metadata": json.dumps(metadata)}]
    write(root, "var/lib/containers/storage/overlay-containers/containers.json", rows)


def containerd(root: Path) -> None:
    annotations = {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.image-name": "registry/app:7",
    }
    path = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
    write(root, path, {"ociVersion": "1.1.0", "annotations": annotations})


@pytest.mark.parametrize(
    ("runtime", "named"),
    [
        (docker, ("web", "nginx:1.25")),
        (podman, ("my-web", "localhost/web:1.2")),
        (podman_volatile, ("once", "localhost/job:3")),
        (cri_o, ("app", "registry/app:7")),
        (containerd, ("app", "registry/app:7")),
    ],
)
def test_each_runtimes_own_words_are_read(tmp_path: Path, runtime: object, named: tuple[str, str]) -> None:
    runtime(tmp_path)  # type: ignore[operator]
    records = ContainerRecords(str(tmp_path))
    assert records.of(ID) == named
    assert records.of("0" * 64) == (None, None)


@pytest.mark.parametrize("name", ["", "web", f"user-1000.slice/{ID}", f"../{ID}", ID.upper(), ID + "\n"])
def test_an_id_that_somebody_could_have_made_up_is_not_looked_for(tmp_path: Path, name: str) -> None:
    docker(tmp_path)
    assert ContainerRecords(str(tmp_path)).of(name) == (None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"Name": 7, "Config": []}', "[" * 100_000])
def test_a_broken_file_tells_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / f"var/lib/docker/containers/{ID}/config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert ContainerRecords(str(tmp_path)).of(ID) == (None, None)


def test_a_link_or_a_pipe_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    docker(tmp_path)
    file = tmp_path / f"var/lib/docker/containers/{ID}/config.v2.json"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert ContainerRecords(str(tmp_path)).of(ID) == (None, None)
    file.unlink()
    os.mkfifo(file)
    assert ContainerRecords(str(tmp_path)).of(ID) == (None, None)
