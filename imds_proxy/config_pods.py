"""The section `pods` of the configuration: how callers in pods are named. Keys, ranges, defaults."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from imds_proxy.config_reader import key
from imds_proxy.config_rules import Flag
from imds_proxy.config_values import Directory, HostValue, Word, quoted

Names = Literal["none", "api"]

_FROM_ENVIRONMENT = "auto"
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class NodeName:
    """What Kubernetes calls this machine."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "the name of a node, in lower case"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if not _NODE.fullmatch(text):
            raise ValueError(f"{quoted(text)} is no node; write {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Pods:
    """For the node agent."""

    networks: bool = field(
        default=False,
        metadata=key(
            Flag(), "true: callers in pods' own network namespaces are named too, as exactly as on the host."
        ),
    )
    names: Names = field(
        default="none",
        metadata=key(
            Word(get_args(Names)),
            "api: name, namespace, labels and service account of pods, by a watch of the API server.",
        ),
    )
    api: str = field(
        default=_FROM_ENVIRONMENT,
        metadata=key(
            HostValue(), "The API server, over TLS; auto: what Kubernetes tells every pod by its environment."
        ),
    )
    node: str = field(
        default=_FROM_ENVIRONMENT,
        metadata=key(NodeName(), "This machine's name in Kubernetes; auto: $NODE_NAME."),
    )
    credentials: Path = field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        metadata=key(Directory(), "Directory of the service account's `token` and `ca.crt`."),
    )

    def node_name(self) -> str:
        """This machine's name; empty where it is not known."""
        if self.node != _FROM_ENVIRONMENT:
            return self.node
        named = os.environ.get("NODE_NAME", "")  # a manifest sets it, from the pod's spec.nodeName
        return named if _NODE.fullmatch(named) else ""

    def api_address(self) -> tuple[str, int]:
        """Host and port of the API server; the host is empty where it is not known."""
        if self.api == _FROM_ENVIRONMENT:
            port = os.environ.get("KUBERNETES_SERVICE_PORT", "")
            return os.environ.get("KUBERNETES_SERVICE_HOST", ""), int(port) if port.isdecimal() else 443
        host, colon, port = self.api.rpartition(":")
        if not colon or self.api.endswith("]"):
            host, port = self.api, "443"
        return host.removeprefix("[").removesuffix("]"), int(port)
