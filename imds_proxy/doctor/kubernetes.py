"""Checks of a Kubernetes node: does pods' traffic pass its netfilter, do ACK's parts speak hardened mode.

Knows nothing of the cluster's API: what stands on the node says it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imds_proxy.doctor.finding import Finding
from imds_proxy.doctor.programs import ask_program, find_program
from imds_proxy.protocol.profile import ALIBABA

# PROTOCOL section "Control plane": minimum versions for HttpTokens=required, by name of container or image.
_COMPONENTS = {
    "cloud-controller-manager": "2.11.3",
    "terway": "1.9.16",
    "terway-eniip": "1.9.16",
    "terway-controlplane": "1.9.16",
    "csi-plugin": "1.33.3",
    "csi-provisioner": "1.33.3",
    "storage-operator": "1.32.10",
    "ack-erdma-controller": "0.2.6",
    "mse-ingress-controller": "1.1.18",
    "alb-ingress-controller": "2.18.0",
    "kritis-validation-hook": "0.12.0",
    "aliyun-acr-credential-helper": "25.07.21.1",
    "logtail-ds": "2.1.14.0",
    "loongcollector": "3.1.1",
    "loongcollector-ds": "3.1.1",
    "metrics-server": "0.3.9.7",
    "alicloud-monitor-controller": "1.8.4",
    "node-problem-detector": "1.2.26",
    "arms-prometheus-agent": "1.1.32",
    "ack-cost-exporter": "1.0.18",
    "sysom-monitor": "1.1.2",
    "arms-cmonitor": "4.1.2",
    "onepilot": "5.0.0",
    "cluster-autoscaler": "1.3.18",
    "goatscaler": "0.4.5",
    "migrate-controller": "1.8.6",
    "csi-secrets-store-provider-alibabacloud": "0.5.0",
    "ack-secret-manager": "0.5.12",
    "extend-network-controller": "0.12.0",
}
_NEVER = {"flexvolume": "migrate its volumes to CSI"}
_LONGEST = 4 * 1024 * 1024  # characters of crictl's answer
_SERVICE = ipaddress.ip_address(ALIBABA.addresses[0])


def pod_network(directory: Path) -> Finding:
    """Whether the node agent can redirect pods' traffic here. `directory` is /etc/cni/net.d."""
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in {".conf", ".conflist", ".json"})
        text = files[0].read_text(encoding="utf-8", errors="replace") if files else ""
    except OSError:
        text = ""
    if not text:
        return Finding("pod-network", "ok", "this is no Kubernetes node: no pod network is configured")
    return judge_network(text)


def judge_network(text: str) -> Finding:
    """The finding for the text of a CNI configuration, a single one or a list."""
    slug = "pod-network"
    try:
        found = json.loads(text)
        plugins = [one for one in found.get("plugins", [found]) if isinstance(one, dict)]
    except (ValueError, AttributeError, TypeError):
        return Finding(slug, "unknown", "the pod network's configuration (/etc/cni/net.d) is not JSON")
    types = [str(one.get("type")) for one in plugins]
    terway = next((one for one in plugins if one.get("type") == "terway"), None)
    if terway is not None:
        return _terway(terway)
    if "flannel" in types:
        return Finding(slug, "ok", "Flannel: pods' traffic passes the node (intercept.forwarded: [cni0])")
    sentence = f"pod network of type {', '.join(types)}: whether its traffic passes the node is not known"
    return Finding(
        slug, "unknown", sentence, "try it: imds-proxy intercept status on the node, curl in a pod"
    )


def _terway(plugin: dict[str, Any]) -> Finding:
    slug, kind = "pod-network", str(plugin.get("eniip_virtual_type") or "policy routes")
    if _goes_to_host(plugin.get("host_stack_cidrs")):
        sentence = f"Terway ({kind}) sends pods' metadata calls through the node (host_stack_cidrs)"
        return Finding(slug, "ok", sentence)
    if kind.lower() in {"ipvlan", "datapathv2"}:
        return Finding(
            slug,
            "warn",
            f"Terway ({kind}): pods' traffic does not pass the node's netfilter, nor the node agent",
            "use the sidecar (packaging/kubernetes), or add 100.100.100.200/32 to Terway's host_stack_cidrs",
        )
    return Finding(
        slug,
        "ok",
        f"Terway ({kind}): pods' traffic passes the node (intercept.forwarded: [cali*]), but not that of "
        "pods with a network interface of their own",
    )


def _goes_to_host(cidrs: object) -> bool:
    for cidr in cidrs if isinstance(cidrs, list) else []:
        try:
            if _SERVICE in ipaddress.ip_network(str(cidr), strict=False):
                return True
        except ValueError:
            continue
    return False


def components() -> Finding:
    """Which of ACK's components on this node fail with HttpTokens=required, by their running containers."""
    slug = "ack-components"
    path = find_program("crictl")
    if path is None:
        return Finding(slug, "ok", "no crictl here: containers of a Kubernetes node are not looked at")
    try:
        answers = [ask_program(path, what, "-o", "json", longest=_LONGEST) for what in ("ps", "images")]
        running, images = (json.loads(output[output.index("{") :]) for _, output in answers)
        found = set(running_images(running, images))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Finding(
            slug, "unknown", "crictl does not tell the containers of this node", "run this as root"
        )
    return judge_components(found)


def running_images(running: dict[str, Any], images: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A container's name and its image with a tag, from crictl's `ps` and `images`. Raises LookupError."""
    tags = {image["id"]: image.get("repoTags") or [] for image in images["images"]}
    for container in running["containers"]:
        named = (container["image"].get("userSpecifiedImage"), container["image"].get("image"))
        known = (*tags.get(container.get("imageRef"), ()), *tags.get(container["image"].get("image"), ()))
        for image in (*named, *known):
            if image and ":" in image.rpartition("/")[2] and not image.startswith("sha256:"):
                yield container["metadata"]["name"], image
                break


def judge_components(found: set[tuple[str, str]]) -> Finding:
    """The finding for containers: name and image."""
    slug, old, known = "ack-components", [], 0
    for name, image in sorted(found):
        repository, _, tag = image.rpartition("/")[2].partition(":")
        component = next((one for one in (repository, name) if one in _COMPONENTS or one in _NEVER), None)
        if component is None:
            continue
        known += 1
        if component in _NEVER:
            old.append(f"{component} never speaks it ({_NEVER[component]})")
            continue
        version, least = _version(tag), _version(_COMPONENTS[component])
        if version is None or least is None:
            old.append(f"{component} {tag} (its version is not told; {_COMPONENTS[component]} is needed)")
        elif version < least:
            old.append(f"{component} {tag} (older than {_COMPONENTS[component]})")
    if old:
        sentence = f"with HttpTokens=required these get 403: {', '.join(old)}"
        return Finding(slug, "warn", sentence, "upgrade them before the switch, or let the proxy serve them")
    return Finding(slug, "ok", f"{known} of ACK's components run here; all speak hardened mode")


def _version(text: str) -> tuple[int, ...] | None:
    match = re.match(r"v?([0-9]{1,6}(?:\.[0-9]{1,6}){1,3})", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None
