"""How callers are named, as the configuration has it: the resolver, and what it knows of pods."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import note_connects
from imds_proxy.callers.podnet import PodNetworks
from imds_proxy.callers.resolver import Resolver
from imds_proxy.config import Config
from imds_proxy.protocol.profile import PROFILES
from imds_proxy.server.log import Log

if TYPE_CHECKING:
    from imds_proxy.kubernetes.directory import PodDirectory
    from imds_proxy.kubernetes.watch import PodWatch


def resolver_of(config: Config, directory: PodDirectory | None, log: Log) -> Resolver:
    """The resolver. Raises OSError where `attribution: ebpf` cannot be had."""
    tree = CgroupTree.find()
    networks = None
    if config.pods.networks:
        try:
            networks = PodNetworks()
        except OSError as error:
            why = f"{error.strerror or error} (CAP_SYS_ADMIN)"
            log.event(
                "no-pod-networks", "callers in pods are not looked for: it may not be entered", detail=why
            )
    notes = None
    if config.attribution != "procfs":
        try:
            notes = note_connects(tree.mount, _ports(config))
        except OSError as error:
            if config.attribution == "ebpf":
                tree.close()
                raise
            why = error.strerror or str(error)
            log.event("no-ebpf", "callers are looked for in /proc: eBPF cannot be had", detail=why)
    return Resolver(tree=tree, notes=notes, networks=networks, pods=directory)


def watch_of(config: Config, log: Log) -> tuple[PodDirectory, PodWatch] | None:
    """What is known of pods, and what keeps it true once it runs; None where that is not asked for."""
    pods = config.pods
    if pods.names != "api":
        return None
    (host, port), node = pods.api_address(), pods.node_name()
    if not host or not node:
        missing = "pods.node, or $NODE_NAME" if host else "pods.api, or $KUBERNETES_SERVICE_HOST"
        log.event("pods-unknown", "the API server is not asked for pods", detail=f"there is no {missing}")
        return None
    # No part of the start of a daemon that is not asked to know pods.
    from imds_proxy.kubernetes.client import ApiServer
    from imds_proxy.kubernetes.directory import PodDirectory
    from imds_proxy.kubernetes.watch import PodWatch

    directory = PodDirectory()
    server = ApiServer(host, port, pods.credentials)
    return directory, PodWatch(server, node, directory, log, random.SystemRandom().random)


def _ports(config: Config) -> list[int]:
    """Redirected callers connect to the service's port, others to ours; where that is not known yet, any."""
    ours = {address.port for address in (*config.listen, *config.intercept.address)}
    return [] if 0 in ours else sorted({PROFILES[config.provider].port, *ours})
