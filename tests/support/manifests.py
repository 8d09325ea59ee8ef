"""What `kubectl kustomize` makes of packaging/kubernetes."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parents[2] / "packaging/kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"

Resource = dict[str, Any]


def kustomized(directory: Path) -> list[Resource]:
    """The resources of a kustomization, in order. AssertionError, with what was said, where it is refused."""
    return list(yaml.safe_load_all(_text(directory)))


@cache
def _text(directory: Path) -> str:
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(directory)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def one(resources: list[Resource], kind: str) -> Resource:
    """The only resource of a kind."""
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found


def pod_spec(resource: Resource) -> Resource:
    """The specification of the pods that a workload makes."""
    spec: Resource = resource["spec"]
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec if resource["kind"] == "Pod" else dict(spec["template"]["spec"])


def container(spec: Resource, name: str) -> Resource:
    """A container, or an init container, by its name."""
    every = [*spec.get("initContainers", []), *spec["containers"]]
    (found,) = [one_ for one_ in every if one_["name"] == name]
    return dict(found)
