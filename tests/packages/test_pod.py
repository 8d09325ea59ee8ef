"""A real pod of the sidecar manifest, run by podman with the containers and capabilities that it names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from cloud import Lab, cloud_and_host
from containers import Store
from manifests import KUBERNETES, kustomized
from pods import RunningPod, podman_form, running_pod

pytestmark = [pytest.mark.root, pytest.mark.slow]

SYS_PTRACE, DAC_READ_SEARCH = 19, 2


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cloud_and_host("--http-tokens", "required") as made:
        yield made


@pytest.fixture(scope="module")
def pod(store: Store, image: str, lab: Lab) -> Iterator[RunningPod]:
    """The example: a container that calls in normal mode by curl, with the component added to it."""
    images = {"imds-proxy-intercept": image, "imds-proxy": image, "legacy": "localhost/debian"}
    resources = podman_form(kustomized(KUBERNETES / "examples/sidecar"), images)
    with running_pod(store, lab.cloud, resources) as running:
        yield running


def wait_for(condition: Callable[[], object], what: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def of_kind(pod: RunningPod, event: str) -> list[dict[str, object]]:
    return [line for line in pod.log("imds-proxy") if line["event"] == event]


def test_a_legacy_container_is_upgraded_and_named_with_its_container(pod: RunningPod, lab: Lab) -> None:
    wait_for(lambda: "i-bp1" in pod.output("legacy"), lambda: pod.log("imds-proxy"))
    wait_for(lambda: of_kind(pod, "legacy-caller"), lambda: pod.log("imds-proxy"))
    (caller,) = of_kind(pod, "legacy-caller")
    assert caller["exe"] == "/usr/bin/curl"
    assert caller["uid"] == 1000
    assert caller["container"] == pod.id("legacy")
    counters = lab.counters()
    assert counters["v1_gets"] == 0
    assert counters["v2_gets"] > 0


def test_the_sidecar_has_dropped_to_its_user_and_kept_two_capabilities(pod: RunningPod) -> None:
    wait_for(lambda: of_kind(pod, "ready"), lambda: pod.log("imds-proxy"))
    status = pod.status("imds-proxy")
    assert status["Uid"].split() == ["64200"] * 4
    kept = 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == kept
    assert int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_the_probes_find_it_alive(pod: RunningPod) -> None:
    address = "http://10.98.0.2:9810"  # the kubelet asks the pod's address
    wait_for(lambda: of_kind(pod, "ready"), lambda: pod.log("imds-proxy"))
    done = pod.network.client("curl", "-sS", "--max-time", "5", f"{address}/healthz")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    python = "/usr/lib/imds-proxy/bin/python"
    assert (
        pod.store.attempt("exec", f"{pod.name}-imds-proxy", python, "-m", "imds_proxy.health").returncode == 0
    )


def test_who_connects_to_the_listener_itself_is_refused(pod: RunningPod) -> None:
    done = pod.network.client("curl", "-sS", "--max-time", "5", "http://169.254.100.200:20200/")
    assert done.returncode == 7  # refused, not timed out


def test_while_the_sidecar_is_down_calls_are_refused_at_once_and_nothing_passes_by(
    pod: RunningPod, lab: Lab
) -> None:
    """The last test of the module: it ends the sidecar."""
    pod.store.podman("kill", f"{pod.name}-imds-proxy")
    before = lab.counters()
    began = time.monotonic()
    done = pod.network.client("curl", "-sS", "--max-time", "5", "http://100.100.100.200/latest/meta-data/")
    assert done.returncode == 7
    assert time.monotonic() - began < 3
    assert lab.counters()["v1_gets"] == before["v1_gets"]
    assert "imds_proxy" in pod.network.nft("list ruleset")
