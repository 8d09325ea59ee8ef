"""Manifests run by podman, in a network of their own with a way to an emulated service. Root only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cloud import Place
from containers import Store
from manifests import Resource, one, pod_spec
from netns import run

_PODS_END, _CLOUDS_END = "10.98.0.2", "10.98.0.1"
# What this version of podman cannot do: probes need systemd, published ports a bridge.
_NOT_OF_PODMAN = ("startupProbe", "livenessProbe", "readinessProbe", "ports")


def podman_form(resources: list[Resource], images: dict[str, str]) -> list[Resource]:
    """The pod of a manifest's Deployment, and what it mounts, as podman takes them.

    A native sidecar becomes an ordinary container: podman starts those in order, after the init containers.
    Nothing of what the containers may do is changed.
    """
    deployment = one(resources, "Deployment")
    spec = deepcopy(pod_spec(deployment))
    sidecars = [each for each in spec["initContainers"] if each.pop("restartPolicy", None) == "Always"]
    spec["initContainers"] = [each for each in spec["initContainers"] if each not in sidecars]
    spec["containers"] = [*sidecars, *spec["containers"]]
    spec["restartPolicy"] = "Never"  # or podman starts init containers again, too
    for each in [*spec["initContainers"], *spec["containers"]]:
        each["image"] = images[each["name"]]
        each["imagePullPolicy"] = "Never"
        for key in _NOT_OF_PODMAN:
            each.pop(key, None)
    metadata = {"name": deployment["metadata"]["name"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return [one(resources, "ConfigMap"), pod]


@dataclass(frozen=True)
class RunningPod:
    """A pod of podman's, by its name; `network` is its network namespace."""

    store: Store
    name: str
    network: Place

    def log(self, container: str) -> list[dict[str, Any]]:
        """The JSON lines that a container wrote."""
        done = self.store.attempt("logs", f"{self.name}-{container}")
        lines = (done.stdout + done.stderr).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def output(self, container: str) -> str:
        return self.store.attempt("logs", f"{self.name}-{container}").stdout

    def id(self, container: str) -> str:
        return self.store.podman("inspect", f"{self.name}-{container}", "--format", "{{.Id}}").strip()

    def status(self, container: str) -> dict[str, str]:
        """/proc/PID/status of its first process, as the kernel has it."""
        pid = self.store.podman("inspect", f"{self.name}-{container}", "--format", "{{.State.Pid}}").strip()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@contextmanager
def running_pod(store: Store, cloud: Place, resources: list[Resource]) -> Iterator[RunningPod]:
    """The pod, once its init containers are done; its default route leads to `cloud`."""
    pod = one(resources, "Pod")
    name = pod["metadata"]["name"]
    manifest = store.path / f"{name}.yaml"
    manifest.write_text(yaml.safe_dump_all(resources))
    store.podman("play", "kube", "--network", "none", "--start=false", str(manifest))
    try:
        # Its network before its containers: the init container is to find a route.
        infra = store.podman("pod", "inspect", name, "--format", "{{.InfraContainerID}}").strip()
        store.podman("start", infra)
        network = Place(int(store.podman("inspect", infra, "--format", "{{.State.Pid}}")))
        run("ip", "link", "add", "eth0", "netns", str(network.pid), "type", "veth",
            "peer", "name", "pod", "netns", str(cloud.pid))  # fmt: skip
        for place, device, address in ((network, "eth0", _PODS_END), (cloud, "pod", _CLOUDS_END)):
            place.ip(f"addr add {address}/24 dev {device}")
            place.ip(f"link set {device} up")
        network.ip("link set lo up")
        network.ip(f"route add default via {_CLOUDS_END}")
        store.podman("pod", "start", name)
        yield RunningPod(store, name, network)
    finally:
        store.attempt("pod", "rm", "--force", "--time", "0", name)
